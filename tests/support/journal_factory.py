"""A journal that looks like years of campaigns: many finished ones, in the journal's own schema, written in bulk."""

import json
from pathlib import Path

from orchestrator.domain.campaign.accuracy_tasks import TasksSpec
from orchestrator.domain.campaign.job_keys import AttemptJob
from orchestrator.domain.campaign.schedule import schedule
from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.domain.campaign.steps import RUN_STEPS
from orchestrator.store.journal import open_journal
from orchestrator.store.records import RunFigures
from orchestrator.store.tables import ATTEMPT, SUMMED
from tests.support.by_hand import by_hand

_START_NS = 1_700_000_000_000_000_000
_STEP_NS = 20_000_000_000


def old_spec(number: int) -> CampaignSpec:
    """Return the spec of campaign `number`: 25 configurations, three repetitions."""
    tasks = TasksSpec(mmlu_5shot="a", arc_challenge_25shot="b", hellaswag_10shot="c")
    return CampaignSpec(id=f"campaign-{number:04d}", model="m", corpus="c", tasks=tasks)


async def fill_journal(path: Path, campaigns: int) -> int:
    """Write `campaigns` finished campaigns of 75 runs each and return the number of runs.

    Every tenth run needed a second attempt; each attempt has an intent for every step and its two ends.
    """
    async with open_journal(path) as _:
        pass  # the schema is the journal's own
    runs = 0
    with by_hand(path, SUMMED) as db:
        now = _START_NS
        for number in range(campaigns):
            spec = old_spec(number)
            heads: list[tuple[object, ...]] = [(spec.id, spec.model_dump_json(), spec.spec_hash(), "finished", now)]
            attempts: list[tuple[object, ...]] = []
            entries: list[tuple[object, ...]] = []
            for state in ("created", "running"):
                entries.append((now, spec.id, "", 0, "", "state", json.dumps({"state": state})))
            for planned in schedule(spec):
                runs += 1
                run = planned.run.format()
                broken = runs % 10 == 0
                for attempt, outcome in enumerate(("failed", "done") if broken else ("done",), start=1):
                    began = now
                    entries.append((now, spec.id, run, attempt, "", "attempt", '{"state": "started"}'))
                    for step in RUN_STEPS:
                        now += _STEP_NS
                        job = AttemptJob(
                            campaign=spec.id, run=planned.run, attempt=attempt, step=step, agent="node1", kind=step
                        )  # fmt: skip
                        intent = {"job": job.format(), "agent": "node1"}
                        entries.append((now, spec.id, run, attempt, step, "intent", json.dumps(intent)))
                    if outcome == "done":
                        windows = ((now - 6 * _STEP_NS, now - 5 * _STEP_NS), (now - 4 * _STEP_NS, now - _STEP_NS))
                        figures = RunFigures(attempt=attempt, epi=1.5, accuracy=0.5, validity="FLAG", windows=windows)
                        entries.append((now, spec.id, run, 0, "evaluate", "result", figures.model_dump_json()))
                    reason, fault = ("", "") if outcome == "done" else ("the node went away", "infrastructure")
                    end = json.dumps({"state": outcome, "reason": reason, "fault": fault})
                    entries.append((now, spec.id, run, attempt, "", "attempt", end))
                    attempts.append((spec.id, run, attempt, outcome, "evaluate", reason, fault, began, now))
            entries.append((now, spec.id, "", 0, "", "state", '{"state": "finished", "reason": ""}'))
            db.executemany(
                "INSERT INTO campaign (id, spec, spec_hash, state, created_utc_ns) VALUES (?, ?, ?, ?, ?)", heads
            )
            db.executemany(
                f"INSERT INTO attempt ({', '.join(ATTEMPT.columns)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", attempts
            )
            db.executemany(
                "INSERT INTO entry (utc_ns, campaign, run, attempt, step, kind, payload) VALUES (?, ?, ?, ?, ?, ?, ?)",
                entries,
            )
    return runs
