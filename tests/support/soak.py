"""Days of a campaign in minutes: the processes of a lab with their real stores and code, on simulated time.

`python -m tests.support.soak meter ...` stores the samples of one day after the other, as the bridge's ingest does;
`... campaign ...` journals runs, reads their traces from the bridge, evaluates them, writes results and copies the
journal, as the orchestrator does. Each does a day for every line it reads, and answers with one line of JSON. Not here:
what must hold (tests/integration/test_soak.py).
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import quantiles
from typing import NoReturn

import numpy as np
import psutil

from meter_bridge.timing.anchor import Anchor
from meter_bridge.trace.records import StoredSample
from meter_bridge.trace.store import TraceStore
from orchestrator.benchmarks.records import WindowAnswers
from orchestrator.campaign.attempt_ends import AttemptEnds
from orchestrator.campaign.evaluator import Evaluator
from orchestrator.campaign.patience import Patience
from orchestrator.campaign.pending import PendingEvaluation, PendingEvaluations
from orchestrator.campaign.safekeeping import JournalKeeper
from orchestrator.campaign.trace import TraceReading
from orchestrator.domain.campaign.job_keys import AttemptJob
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.campaign.steps import RUN_STEPS
from orchestrator.results.files import write_campaign
from orchestrator.results.schema import CampaignFile
from orchestrator.store.copies import JournalCopies
from orchestrator.store.journal import Journal, open_journal
from shared.service.health import HealthRegistry
from shared.wire.client import AgentClient
from tests.support.domain_lab import configuration, questions, run_input
from tests.support.journal_factory import old_spec
from tests.support.long_run import PROTOCOL_OF_A_LAB
from tests.support.long_trace import INSTRUMENT, LONG_AGO_UTC_NS, NODES, NS

NAMES = ("baseline", "drop4_all")
RUN_EVERY_S = 3600
RUN_LASTS_S = 900
RUNS_A_DAY = 24 * 3600 // RUN_EVERY_S
CAMPAIGN = "soak"
_BATCH_S = 30
"""Simulated seconds of samples in one commit; the real writer commits twice a second."""


async def meter(state: Path, rate_hz: int) -> None:
    """Store a day's samples for every line of standard input."""
    store = await TraceStore.open(state / "trace.sqlite")
    stream = store.new_stream(store.instrument_id(INSTRUMENT), LONG_AGO_UTC_NS)
    anchor = store.new_anchor(Anchor("a boot of long ago", LONG_AGO_UTC_NS), LONG_AGO_UTC_NS)
    rng = np.random.default_rng(1)

    async def day(number: int) -> dict[str, float]:
        commits = []
        for begin_s in range(number * 86400, (number + 1) * 86400, _BATCH_S):
            power = (6 + rng.normal(0, 0.2, (_BATCH_S * rate_hz, len(NODES)))).tolist()
            for at, watts in enumerate(power):
                own = begin_s * rate_hz + at
                mono_ns = own * (NS // rate_hz)
                register = (6 * own / rate_hz / 3600,) * len(NODES)
                store.put(
                    StoredSample(
                        LONG_AGO_UTC_NS + mono_ns, mono_ns, mono_ns, stream, anchor, tuple(watts), own,
                        own * 1000 // rate_hz, register_wh=register,
                    )
                )  # fmt: skip
            began = time.monotonic()
            await store.flush()
            commits.append(time.monotonic() - began)
        assert store.lost == 0 and store.problem is None
        return {"commit_p95_ms": _p95_ms(commits)}

    await _each_day(day)
    await store.close()


async def campaign(state: Path, results: Path, url: str) -> None:
    """Measure, evaluate and journal a day's runs for every line of standard input."""
    health = HealthRegistry()
    folder = results / CAMPAIGN
    client = AgentClient(url, None)
    async with open_journal(state / "journal.sqlite") as journal:
        await journal.create(old_spec(1).model_copy(update={"id": CAMPAIGN}))
        await journal.set_state(CAMPAIGN, "running")
        pending, ends = PendingEvaluations(state, CAMPAIGN), AttemptEnds(journal, CAMPAIGN, state)
        ends.reserve()
        evaluator = Evaluator(
            journal, CAMPAIGN, folder, pending, TraceReading(client, 60.0, _never, lambda _: None),
            Patience(results, health, lambda _: None), _is_never, _no_suite, ends,
        )  # fmt: skip
        keeper = JournalKeeper(JournalCopies(journal.path), health, lambda: False)

        async def day(number: int) -> dict[str, float]:
            writes: list[float] = []
            whole: list[float] = []
            for of_day in range(RUNS_A_DAY):
                began = time.monotonic()
                await _run(journal, evaluator, number * RUNS_A_DAY + of_day, writes)
                await keeper.keep()
                whole.append(time.monotonic() - began)
            began = time.monotonic()
            await journal.campaigns(100)
            await journal.attempts(CAMPAIGN)
            await journal.entries(await journal.last_seq() - 200, 200)
            listing_ms = 1000 * (time.monotonic() - began)
            assert health.status == "ok", health.problems()
            return {"write_p95_ms": _p95_ms(writes), "run_p95_ms": _p95_ms(whole), "list_ms": listing_ms}

        folder.mkdir(parents=True)
        await _each_day(day)
        repetitions = (await journal.runs_done())[CAMPAIGN] // len(NAMES)
        write_campaign(
            folder,
            CampaignFile(
                campaign_id=CAMPAIGN, model="demo-moe", hardware="4 emulated nodes", instrument=INSTRUMENT,
                created_utc_ns=LONG_AGO_UTC_NS, repetitions=repetitions,
                configurations=tuple(map(configuration, NAMES)), protocol=PROTOCOL_OF_A_LAB,
            ),
        )  # fmt: skip
        await journal.set_state(CAMPAIGN, "finished")
    await client.close()


async def _run(journal: Journal, evaluator: Evaluator, number: int, writes: list[float]) -> None:
    """Journal one run as the orchestrator does and let it be evaluated."""
    name, repetition = NAMES[number % len(NAMES)], number // len(NAMES) + 1
    run = RunReference(configuration=name, repetition=repetition)
    attempt = await journal.begin_attempt(CAMPAIGN, run)
    for step in RUN_STEPS[:-1]:
        job = AttemptJob(campaign=CAMPAIGN, run=run, attempt=attempt, step=step, agent="node1", kind=step)
        began = time.monotonic()
        await journal.append(
            CAMPAIGN, kind="intent", run=run, attempt=attempt, step=step,
            payload={"job": job.format(), "agent": "node1"},
        )  # fmt: skip
        writes.append(time.monotonic() - began)
    await evaluator.take(_measured(name, repetition, attempt, number * RUN_EVERY_S), None)


def _measured(name: str, repetition: int, attempt: int, begin_s: int) -> PendingEvaluation:
    def at(seconds: float) -> int:
        return LONG_AGO_UTC_NS + round((begin_s + seconds) * NS)

    tokens = {"generated": 9_000 + repetition, "prompt": 900, "scored": 900}
    windows = tuple(
        {"label": label, "start_utc_ns": at(begin), "end_utc_ns": at(end), "ledger": tokens}
        for label, begin, end in (("idle", 10, 70), ("prefill", 80, 200), ("decode", 210, 620), ("score", 640, 880))
    )
    run = run_input(
        name, repetition, campaign_id=CAMPAIGN, attempt=attempt, windows=windows, markers=(), timestamp_utc_ns=at(10),
        instrument=INSTRUMENT.model_dump(), protocol=PROTOCOL_OF_A_LAB,
    )  # fmt: skip
    return PendingEvaluation(
        run=run, questions=questions((14, 14, 14)), trace_start_utc_ns=at(0), trace_end_utc_ns=at(RUN_LASTS_S)
    )


async def _each_day(day: Callable[[int], Awaitable[dict[str, float]]]) -> None:
    own = psutil.Process(os.getpid())
    number = 0
    while await asyncio.to_thread(sys.stdin.readline):
        found = await day(number)
        number += 1
        print(json.dumps({**found, "rss_mb": own.memory_info().rss / (1 << 20)}), flush=True)


def _p95_ms(seconds: list[float]) -> float:
    return 1000 * quantiles(seconds, n=20)[-1]


async def _never() -> None:
    """Nobody asks the campaign to stop."""


async def _is_never() -> bool:
    return False


async def _no_suite(_: WindowAnswers) -> NoReturn:
    raise AssertionError("the answers of these runs are counted")


def main() -> None:
    """Be one of the two."""
    role, *words = sys.argv[1:]
    if role == "meter":
        asyncio.run(meter(Path(words[0]), int(words[1])))
    else:
        asyncio.run(campaign(Path(words[0]), Path(words[1]), words[2]))


if __name__ == "__main__":
    main()
