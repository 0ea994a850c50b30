"""SIGKILL of every process at every journal boundary, and at 100 random moments: the campaign ends by itself.

One campaign a process: at each boundary that it has not been killed at yet, the orchestrator halts, the process is
killed, and things go on; a supervisor starts it again, as systemd does in a lab. At the end all equals an undisturbed
campaign but times and joules. `pytest -s` prints the table of what became of each boundary.
"""

import json
import os
import random
import select
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest

from orchestrator.domain.campaign.accuracy_tasks import AccuracySpec
from orchestrator.domain.campaign.job_keys import AttemptJob
from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.local.layout import LocalLab
from orchestrator.store.records import Entry
from shared.kernel.errors import EpiError
from tests.crash.answers import answers, check_end, entries_of, outcome_of
from tests.crash.stepwise import StepwiseLab, stepwise_lab
from tests.support.lab import process_of, scored_spec, short_spec, start_campaign

CONFIGURATIONS = ("baseline", "drop4_all")
PROCESSES = ("orchestrator", "surgeon", "meter", "node1", "node2", "node3", "node4", "engine", "worker")
CHILD_OF = {"engine": "node1", "worker": "node3"}
SEED = 7
RANDOM_KILLS = 100
_BACK_WITHIN_S = 20.0


def campaign_spec(name: str) -> CampaignSpec:
    spec = short_spec(name, ",".join(CONFIGURATIONS))
    return spec.model_copy(update={"max_attempts": 100})


def pid_of(lab: LocalLab, process: str) -> int | None:
    """Return the pid of a process of the lab, None when it does not live now."""
    if (node := CHILD_OF.get(process)) is not None:
        try:
            return int((lab.node_pids(node) / f"{process}.pid").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None
    try:
        return process_of(lab, process)
    except AssertionError:
        return None


def kill(lab: LocalLab, process: str) -> bool:
    """Kill a process; a part that is just being started again is waited for. False when it does not live."""
    deadline = time.monotonic() + _BACK_WITHIN_S
    while (pid := pid_of(lab, process)) is None and process not in CHILD_OF and time.monotonic() < deadline:
        time.sleep(0.05)
    if pid is None:
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        _wait_gone(pid)
    return True


def _wait_gone(pid: int) -> None:
    handle = os.pidfd_open(pid)
    try:
        select.select([handle], [], [], 5)
    finally:
        os.close(handle)


def keep_starting(lab: LocalLab, spec: CampaignSpec) -> threading.Thread:
    """Ask for the campaign until the orchestrator has taken it, as a client of a lab does."""

    def ask() -> None:
        for _ in range(100):
            with suppress(EpiError):
                start_campaign(lab, spec)
                break
            time.sleep(0.2)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def boundary(entry: Entry) -> str:
    """Name what was just committed, without the attempt's number."""
    if entry.kind == "state":
        return f"campaign {entry.payload.get('state') or entry.payload.get('request')}"
    if entry.kind == "attempt":
        return f"{entry.run} attempt {entry.payload['state']}"
    job: list[str] = []
    if entry.attempt and "job" in entry.payload:
        asked = AttemptJob.parse(entry.payload["job"])
        job = [asked.agent, asked.kind if asked.part == 1 else f"{asked.kind}-{asked.part}"]
    return " ".join([entry.run or "setup", entry.step, *job, entry.kind])


@dataclass(frozen=True)
class Kill:
    """One SIGKILL at one boundary."""

    boundary: str
    entry: Entry
    alive: bool


def kill_at_every_boundary(lab: StepwiseLab, process: str, spec: CampaignSpec) -> list[Kill]:
    kills: dict[str, Kill] = {}
    with lab.stepwise() as boundaries:
        starter = keep_starting(lab, spec)
        while True:
            entry = boundaries.next(timeout_s=600)
            name = boundary(entry)
            if entry.campaign == spec.id and (name not in kills or not kills[name].alive):
                kills[name] = Kill(name, entry, kill(lab, process))
            boundaries.go()
            if entry.kind == "state" and entry.payload.get("state") in ("finished", "failed"):
                break
    starter.join()
    return list(kills.values())


def print_table(lab: LocalLab, process: str, spec: CampaignSpec, kills: list[Kill]) -> None:
    entries = entries_of(lab, spec.id)
    counted: Counter[str] = Counter()
    for one in kills:
        outcome = "does not live then" if not one.alive else _became(one.entry, entries)
        counted[outcome.partition(":")[0]] += 1
        print(f"{process:13}| {one.boundary:60}| {outcome}")
    print(f"{process}: {len(kills)} boundaries, {dict(counted)}")


def _became(killed_at: Entry, entries: list[sqlite3.Row]) -> str:
    """Say what the journal tells of the time after a kill."""
    opened: set[tuple[str, int]] = set()
    kept = "nothing lost"
    for row in entries:
        payload, attempt = json.loads(row["payload"]), (row["run"], row["attempt"])
        if row["seq"] <= killed_at.seq:
            if row["kind"] == "attempt":
                (opened.add if payload["state"] == "started" else opened.discard)(attempt)
        elif row["kind"] == "failure" and (row["run"], row["step"]) == (killed_at.run, killed_at.step):
            return f"call made again: {payload['message'][:70]}"
        elif row["kind"] == "attempt" and attempt in opened:
            if payload["state"] != "done":
                return f"new attempt: {payload['reason'][:100]}"
            kept = "attempt kept"
    return kept


@pytest.fixture(scope="module")
def lab() -> Iterator[StepwiseLab]:
    with stepwise_lab() as running:
        start_campaign(running, campaign_spec("calm"))
        status = check_end(running, "calm", 900)
        assert [len(run["attempts"]) for run in status["runs"]] == [1, 1]
        yield running


@pytest.mark.slow
def test_a_second_orchestrator_on_the_same_journal_refuses(lab: StepwiseLab) -> None:
    command = [sys.executable, "-m", "orchestrator", "--config", str(lab.config_file("orchestrator"))]
    second = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert second.returncode != 0
    assert "another orchestrator (pid " in second.stderr


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("process", PROCESSES)
def test_killed_at_every_boundary(lab: StepwiseLab, process: str) -> None:
    spec = campaign_spec(f"kill-{process}")
    start = time.monotonic()
    kills = kill_at_every_boundary(lab, process, spec)
    print_table(lab, process, spec, kills)
    status = check_end(lab, spec.id, 900)
    attempts = [len(run["attempts"]) for run in status["runs"]]
    print(f"{process}: attempts {attempts}, {time.monotonic() - start:.0f} s")
    alive = sum(one.alive for one in kills)
    assert alive >= 8 if process in CHILD_OF else alive == len(kills), kills
    assert outcome_of(lab, spec.id, CONFIGURATIONS) == outcome_of(lab, "calm", CONFIGURATIONS)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_with_scorers_at_work_killed_at_every_boundary(lab: StepwiseLab) -> None:
    """The scorer and the orchestrator in turn; every campaign asks other questions, so that no answer is known yet."""
    for number, process in enumerate(("scorer1", "orchestrator"), start=1):
        spec = scorers_spec(f"score-{process}", questions=4 + number)
        calm = scorers_spec(f"calm-{process}", questions=4 + number).model_copy(update={"accuracy": _literal(spec)})
        kills = kill_at_every_boundary(lab, process, spec)
        print_table(lab, process, spec, kills)
        check_end(lab, spec.id, 900, late_answers=True)
        start_campaign(lab, calm)
        check_end(lab, calm.id, 900)
        assert answers(lab, spec.id, CONFIGURATIONS) == answers(lab, calm.id, CONFIGURATIONS)


def scorers_spec(name: str, questions: int) -> CampaignSpec:
    spec = scored_spec(name, ",".join(CONFIGURATIONS), "scorers", questions=questions, questions_per_job=2)
    return spec.model_copy(update={"max_attempts": 100})


def _literal(spec: CampaignSpec) -> AccuracySpec:
    """Return the same questions, asked by the literal protocol, which takes no answer set."""
    return spec.intelligence.model_copy(update={"where": "cluster"})


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_killed_at_100_random_moments(lab: StepwiseLab) -> None:
    """Campaign after campaign, each with its own seed, until 100 kills have hit a living process."""
    hits: Counter[str] = Counter()
    for seed in range(SEED, SEED + 100):
        chance = random.Random(seed)
        spec = campaign_spec(f"storm-{seed}")
        start_campaign(lab, spec)
        moments = []
        while not _ended(lab, spec.id):
            time.sleep(chance.uniform(0.2, 6.0))
            process = chance.choice(PROCESSES)
            if hits.total() < RANDOM_KILLS and kill(lab, process):
                hits[process] += 1
                moments.append(process)
        status = check_end(lab, spec.id, 900)
        attempts = [len(run["attempts"]) for run in status["runs"]]
        print(f"seed {seed}: {len(moments)} kills ({' '.join(moments)}), attempts {attempts}")
        assert outcome_of(lab, spec.id, CONFIGURATIONS) == outcome_of(lab, "calm", CONFIGURATIONS)
        if hits.total() >= RANDOM_KILLS:
            break
    print(f"{hits.total()} kills: {dict(hits)}")
    assert hits.total() == RANDOM_KILLS


def _ended(lab: LocalLab, campaign: str) -> bool:
    states = [json.loads(row["payload"]).get("state") for row in entries_of(lab, campaign) if row["kind"] == "state"]
    return bool(states) and states[-1] in ("finished", "failed")
