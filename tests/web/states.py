"""Invented labs for looking at the page in every state: which campaign, how far. All answers are the API's own records.

Not here: what its machines say (invented_machines), what it has measured (invented_results).


A development aid and the ground of the tests of states that a healthy lab does not show on demand (a lost meter, a lost
node, no significant difference). The tests of the dashboard itself drive the real orchestrator.
"""

from dataclasses import dataclass, field

from orchestrator.api.models import AttemptStatus, CampaignStatus, CampaignSummary, RunStatus
from orchestrator.campaign.live import CampaignProgress
from orchestrator.domain.campaign.accuracy_tasks import TasksSpec
from orchestrator.domain.campaign.schedule import PlannedRun, configurations_of
from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.domain.campaign.states import CampaignState
from shared.kernel.clock import utc_ns

STATES = (
    "first_use",
    "preparing",
    "running",
    "pausing",
    "paused",
    "meter_lost",
    "node_lost",
    "finished",
    "no_difference",
    "failed",
    "one_repetition",
)
RUN_S = 24.0
_STEPS = (
    ("deploy", 1),
    ("start_engine", 2),
    ("steady_state", 0),
    ("idle", 2),
    ("marker", 2),
    ("prefill", 4),
    ("decode", 5),
    ("score", 7),
    ("evaluate", 1),
)
S = 1_000_000_000


@dataclass
class InventedLab:
    """One state of a lab, as the API would tell it; `start_utc_ns` moves everything to the present."""

    state: str
    start_utc_ns: int = field(default_factory=utc_ns)

    def __post_init__(self) -> None:
        assert self.state in STATES, self.state
        repetitions = 1 if self.state == "one_repetition" else 3
        self.spec = CampaignSpec(
            id="demo-20261121-2200",
            description="The paper's matrix on the embedded model",
            model="epi-demo-moe",
            corpus="demo",
            repetitions=repetitions,
            tasks=TasksSpec(
                mmlu_5shot="demo_mmlu_style_3shot",
                arc_challenge_25shot="demo_arc_style_5shot",
                hellaswag_10shot="demo_hellaswag_style_2shot",
                questions=100,
            ),
        )
        self.configurations = configurations_of(self.spec)
        self.planned = [
            PlannedRun(configuration, repetition)
            for repetition in range(1, repetitions + 1)
            for configuration in self.configurations[:: 1 if repetition % 2 else -1]
        ]
        whole = self.state in ("finished", "no_difference")
        none = self.state in ("first_use", "preparing")
        self.done = len(self.planned) if whole else 0 if none else min(41, len(self.planned) - 10)

    @property
    def campaign_state(self) -> CampaignState:
        known: dict[str, CampaignState] = {
            "paused": "paused",
            "finished": "finished",
            "no_difference": "finished",
            "failed": "failed",
            "node_lost": "failed",
        }
        return known.get(self.state, "running")

    @property
    def has_campaign(self) -> bool:
        return self.state != "first_use"

    @property
    def metered(self) -> bool:
        return self.state != "meter_lost"

    def step(self) -> tuple[str, float]:
        """Return the present step and its fraction; a run takes `RUN_S` and begins anew."""
        if self.state == "preparing":
            return "observe", 0.4
        at = ((utc_ns() - self.start_utc_ns) / 1e9) % RUN_S
        for name, length in _STEPS:
            if at < length:
                return name, at / length
            at -= length
        return "evaluate", 1.0

    def progress(self) -> CampaignProgress | None:
        if self.campaign_state != "running" or not self.has_campaign:
            return None
        step, fraction = self.step()
        run = "" if self.state == "preparing" else str(self.planned[self.done].run)
        return CampaignProgress(
            campaign=self.spec.id,
            run=run,
            step=step,
            fraction=fraction,
            message="",
            eta_s=None if not run else 1490.0,
            tokens=round(400 * fraction) if step in ("prefill", "decode") else None,
            tokens_total=400 if step in ("prefill", "decode") else None,
            utc_ns=utc_ns(),
            window_open=step in ("idle", "marker", "prefill", "decode", "score"),
        )

    def runs(self) -> tuple[RunStatus, ...]:
        found = []
        began = self.start_utc_ns - int((self.done + 1) * RUN_S * S)
        for i, one in enumerate(self.planned):
            start = began + int(i * RUN_S * S)
            attempts: tuple[AttemptStatus, ...] = ()
            state = "pending"
            if i < self.done:
                state = "done"
                attempts = (
                    AttemptStatus(
                        number=1,
                        outcome="done",
                        step="evaluate",
                        started_utc_ns=start,
                        ended_utc_ns=start + int(RUN_S * S),
                    ),
                )
                if i == 3:
                    lost = AttemptStatus(
                        number=1,
                        outcome="interrupted",
                        step="decode",
                        started_utc_ns=start - 9 * S,
                        ended_utc_ns=start,
                        reason="the engine of node1 ended",
                    )
                    attempts = (lost, attempts[0].model_copy(update={"number": 2}))
            elif i == self.done and self.campaign_state == "running" and self.state != "preparing":
                state = "running"
                attempts = (AttemptStatus(number=1, step=self.step()[0], started_utc_ns=start),)
            elif i == self.done and self.campaign_state == "failed":
                state = "failed"
                attempts = tuple(
                    AttemptStatus(
                        number=n,
                        outcome="failed",
                        step="start_engine",
                        started_utc_ns=start + n * 5 * S,
                        ended_utc_ns=start + n * 5 * S + 4 * S,
                        reason="node3: connection refused",
                    )
                    for n in (1, 2, 3)
                )
            found.append(
                RunStatus(configuration=one.configuration.id, repetition=one.repetition, state=state, attempts=attempts)
            )
        return tuple(found)

    def summary(self) -> CampaignSummary:
        reason = ""
        if self.campaign_state == "failed":
            reason = "drop5_late/rep-2 failed three times: node3: connection refused (check its power and its service)"
        return CampaignSummary(
            id=self.spec.id,
            state=self.campaign_state,
            request="pause" if self.state == "pausing" else "none",
            reason=reason,
            runs_done=self.done,
            runs_total=len(self.planned),
            created_utc_ns=self.start_utc_ns - 1200 * S,
            emulated=True,
        )

    def status(self) -> CampaignStatus:
        progress = self.progress()
        return CampaignStatus(
            **self.summary().model_dump(),
            spec=self.spec,
            spec_hash=self.spec.spec_hash(),
            step="" if progress is None else f"{progress.run or 'setup'}: {progress.step}",
            progress=0.0 if progress is None else progress.fraction,
            eta_s=None if progress is None else progress.eta_s,
            configurations=self.configurations,
            runs=self.runs(),
        )
