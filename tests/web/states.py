"""Invented labs and campaigns for looking at the page in every state. All answers are the API's own records.

A development aid and the ground of the tests of states that a healthy lab does not show on demand (a lost meter, a lost
node, no significant difference). The tests of the dashboard itself drive the real orchestrator.
"""

import math
from dataclasses import dataclass, field

from orchestrator.api.models import (
    AgentStatus,
    AttemptStatus,
    CampaignStatus,
    CampaignSummary,
    ConfigurationResult,
    LabStatus,
    RunDetail,
    RunStatus,
)
from orchestrator.campaign.live import Progress
from orchestrator.domain.answers import Recommendation, ResearchAnswer
from orchestrator.domain.curve import DepthChance, OperatingPoint
from orchestrator.domain.evaluate import evaluate_run
from orchestrator.domain.hypotheses import Hypothesis
from orchestrator.domain.matrix import GROUPS, reference_of
from orchestrator.domain.schedule import PlannedRun, configurations_of
from orchestrator.domain.spec import CampaignSpec, TasksSpec
from orchestrator.domain.states import CampaignState
from orchestrator.domain.validity import Validity
from orchestrator.reports.result_files import trace_csv
from orchestrator.reports.schema import BenchmarkFile, EpiFile
from shared.clock import utc_ns
from shared.errors import ErrorPayload
from shared.meter_api import LivePower, MeterStatus, PowerAggregate
from shared.node_jobs.host import NodeFacts
from shared.protocol import Health
from shared.records import Configuration, Instrument
from tests import domain_lab

NODES = ("node1", "node2", "node3", "node4")
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
    ("stabilise", 0),
    ("idle", 2),
    ("marker", 2),
    ("prefill", 4),
    ("decode", 5),
    ("score", 7),
    ("evaluate", 1),
)
S = 1_000_000_000

INSTRUMENT = Instrument(
    name="epi-meter emulator",
    kind="emulated",
    emulated=True,
    firmware="emulator-1.0",
    measurement_point="none: watts are calculated from CPU time",
    sample_rate_hz=10.0,
)


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
            description="The seed's matrix on the embedded model",
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

    def progress(self) -> Progress | None:
        if self.campaign_state != "running" or not self.has_campaign:
            return None
        step, fraction = self.step()
        run = "" if self.state == "preparing" else self.planned[self.done].run
        return Progress(
            campaign=self.spec.id,
            run=run,
            step=step,
            fraction=fraction,
            message="",
            eta_s=None if not run else 1490.0,
            window_open=step in ("idle", "marker", "prefill", "decode", "score"),
        )

    def power(self, at_utc_ns: int) -> LivePower:
        t = (at_utc_ns - self.start_utc_ns) / 1e9
        at = t % RUN_S
        busy = (
            0.0
            if at < 5
            else 0.9
            if at < 7 and (at * 2) % 2 < 1
            else 0.0
            if at < 7
            else 0.95
            if at < 11
            else 0.62
            if at < 16
            else 0.85
        )
        nodes = {}
        for i, node in enumerate(NODES):
            ripple = 0.12 * math.sin(2.1 * t + i) + 0.05 * math.sin(17 * t + 3 * i)
            mean = 3.0 + 0.1 * i + (4.0 - 0.4 * i) * busy + ripple
            nodes[node] = PowerAggregate(min_w=mean - 0.15, mean_w=mean, max_w=mean + 0.2)
        return LivePower(utc_ns=at_utc_ns, nodes=nodes, cluster_w=sum(n.mean_w for n in nodes.values()), emulated=True)

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

    def results(self) -> list[ConfigurationResult]:
        runs = self.runs()
        found = []
        for one in self.configurations:
            done = sum(run.state == "done" for run in runs if run.configuration == one.id)
            if done:
                found.append(self._result(one, done))
        return found

    def _result(self, one: Configuration, done: int) -> ConfigurationResult:
        effect = {"all": -0.016, "early": -0.004, "late": -0.009}[one.group]
        rise = {"all": 0.004, "early": 0.006, "late": 0.0022}[one.group]
        ratio = 1 + effect * one.depth + rise * one.depth**2 * 0.55
        if self.state == "no_difference":
            ratio = 1 + 0.004 * math.sin(5 * one.depth + len(one.group))
        accuracy = 0.801 * (1 - 0.003 * one.depth**1.7 * (1.6 if one.group == "early" else 1.0))
        base = 0.0912 if one.layout == "uniform" else 0.0986
        spread = 0.018 + 0.002 * one.depth
        ranged = one.depth > 0 and done > 1
        joules = base * ratio * accuracy / 0.801
        verdict = None
        if one.depth:
            verdict = (
                "unknown"
                if not ranged
                else "better"
                if ratio + spread < 1
                else "worse"
                if ratio - spread > 1
                else "not distinguishable"
            )
        return ConfigurationResult(
            configuration=one,
            reference=reference_of(one) if one.depth else None,
            repetitions=done,
            joules_per_token=joules,
            tokens_per_second=171.0 / ratio,
            accuracy_composite=accuracy,
            accuracies={
                "mmlu_5shot": accuracy - 0.05,
                "arc_challenge_25shot": accuracy,
                "hellaswag_10shot": accuracy + 0.05,
            },
            epi=joules / accuracy,
            epi_ratio=ratio if one.depth else 1.0,
            epi_ratio_low=ratio - spread if ranged else None,
            epi_ratio_high=ratio + spread if ranged else None,
            verdict=verdict,
            validity="FAIL" if one.id == "drop6_early" else "FLAG" if one.depth % 3 == 2 else "PASS",
            emulated=True,
        )

    def analysis(self) -> dict[str, object]:
        """Return what the campaign says as a whole, made of the domain's records."""
        chances = (0.02, 0.05, 0.16, 0.24, 0.31, 0.14, 0.06, 0.02, 0.0)
        points = [
            OperatingPoint(
                group=group,
                chances=tuple(
                    DepthChance(
                        depth=depth,
                        configuration_id=f"drop{depth}_{group}" if depth else "baseline",
                        probability=chances[(depth + shift) % 9],
                    )
                    for depth in range(9)
                ),
                most_probable=f"drop{4 - shift}_{group}",
                probability_interior=0.96,
            )
            for shift, group in enumerate(GROUPS)
        ]
        found = [
            Hypothesis(
                name="H1", claim="EPI against depth is U-shaped", answer="supported", sentence="All layers: 0.97."
            ),
            Hypothesis(
                name="H2", claim="The EPI-optimal is not the most accurate", answer="open", sentence="0.81 of draws."
            ),
            Hypothesis(
                name="H4", claim="Energy does not fall linearly", answer="not measured", sentence="One depth only."
            ),
        ]
        advice = Recommendation(configuration_id="drop4_all", sentence="Use drop4_all: EPI -2.9 % (-5.5 to -0.3 %).")
        return {
            "recommendation": advice.model_dump(),
            "hypotheses": [one.model_dump() for one in found],
            "operating_points": [one.model_dump() for one in points],
            "best_chances": [],
            "pareto": [],
            "questions": [ResearchAnswer(name="RQ1", question="Does it pay?", answer="A little.").model_dump()],
            "validity": Validity(verdict="FLAG").model_dump(),
        }

    def lab(self) -> LabStatus:
        agents = [self._node(i, node) for i, node in enumerate(NODES)]
        for name, service in (("surgeon", "surgeon"), ("meter", "meter_bridge")):
            agents.append(
                AgentStatus(
                    name=name,
                    service=service,
                    url="http://127.0.0.1:8705",
                    health=self._health(name, service),
                    seen_utc_ns=utc_ns(),
                )
            )
        meter = MeterStatus(
            connected=self.metered,
            instrument=INSTRUMENT,
            nodes=NODES,
            frames=81_204,
            gaps=1,
            reconnects=0 if self.metered else 3,
            last_sample_utc_ns=utc_ns() if self.metered else self.start_utc_ns,
            problems=() if self.metered else ("/dev/serial/by-id/usb-epi-meter: no such device",),
        )
        return LabStatus(agents=tuple(agents), meter=meter, emulated=True, cached=False, utc_ns=utc_ns())

    def _node(self, i: int, node: str) -> AgentStatus:
        if self.state == "node_lost" and i == 2:
            error = ErrorPayload(
                code="infrastructure",
                fault="infrastructure",
                message="connection refused",
                where="http://127.0.0.1:8703",
                hint="check its power and its service",
            )
            return AgentStatus(name=node, service="node_agent", url="http://127.0.0.1:8703", error=error)
        hot = self.state == "node_lost" and i == 0
        facts = NodeFacts(
            name=node,
            board="Raspberry Pi 5 Model B Rev 1.0",
            cpu_model="Cortex-A76",
            n_cpus=4,
            memory_bytes=8_000_000_000,
            kernel="6.12",
            python="3.11.2",
            governor="ondemand" if hot else "performance",
            cpu_mhz=2400.0,
            temperature_c=54.0 + 3 * i + (24 if hot else 0),
            throttled_bits=0xA000A if hot else 0,
            load_1min=1.1,
            clock_offset_s=0.00021 * i,
            engine_build="llama.cpp 0c1e570",
            disk_free_bytes=91_000_000_000,
            utc_ns=utc_ns(),
        )
        return AgentStatus(
            name=node,
            service="node_agent",
            url=f"http://127.0.0.1:{8701 + i}",
            health=self._health(node, "node_agent"),
            facts=facts,
            seen_utc_ns=utc_ns(),
        )

    def _health(self, name: str, service: str) -> Health:
        return Health.model_validate({"service": service, "name": name, "version": "0.1.0", "utc_ns": utc_ns()})

    def detail(self, configuration: str, repetition: int) -> RunDetail:
        status = next(run for run in self.runs() if (run.configuration, run.repetition) == (configuration, repetition))
        if status.state != "done":
            return RunDetail(status=status)
        run, evaluation, _ = _measured(configuration, repetition)
        epi = EpiFile.of(run, evaluation).model_dump(mode="json")
        return RunDetail(status=status, windows=run.windows, epi=epi, files=("epi", "run", "benchmark", "power_trace"))

    def file(self, configuration: str, repetition: int, kind: str) -> bytes:
        run, evaluation, samples = _measured(configuration, repetition)
        if kind == "power_trace":
            return trace_csv(samples)
        if kind == "benchmark":
            return (
                BenchmarkFile(
                    run_id=run.run_id,
                    configuration_id=run.configuration_id,
                    repetition=repetition,
                    accuracy_tasks=run.protocol.accuracy,
                    note=run.protocol.accuracy_note,
                    questions=_QUESTIONS,
                )
                .model_dump_json()
                .encode()
            )
        return (EpiFile.of(run, evaluation) if kind == "epi" else run).model_dump_json().encode()


_QUESTIONS = domain_lab.questions((14, 15, 18))


def _measured(configuration: str, repetition: int):  # type: ignore[no-untyped-def]
    """A run measured on a synthetic trace and evaluated by the product's own code."""
    run = domain_lab.run_input(configuration, repetition)
    samples = domain_lab.block(
        {f"n{i}": lambda t, i=i: domain_lab.load(t) + 0.2 * i + 0.1 * math.sin(9 * t + i) for i in (1, 2, 3, 4)}, 16.0
    )
    return run, evaluate_run(run, samples, _QUESTIONS), samples
