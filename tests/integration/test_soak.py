"""Eight days of a campaign, time compressed: memory, files and latencies stay bounded, and all is used afterwards.

Real stores written by the real code in processes that live through all days; the bridge that serves the traces is the
real daemon. `pytest -s` prints a line a day.
"""

import asyncio
import filecmp
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from orchestrator.store.copies import KEPT, JournalCopies, damage_of
from orchestrator.store.journal import open_journal
from tests.integration.test_long_run import ROOT, backup, peak_mb
from tests.support.long_trace import NODES
from tests.support.meter_rig import MeterRig
from tests.support.soak import CAMPAIGN, RUNS_A_DAY

_MB = 1 << 20
WRITE_MS = 200.0
"""A journal write at the 95th percentile, also on a busy machine; it is a few ms on an idle one."""


class Part:
    """A process that does a day of its work when it is told to."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.soak", *words], cwd=ROOT, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def day(self) -> dict[str, float]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"it ended with {self.process.wait(60)}"
        found: dict[str, float] = json.loads(line)
        return found

    def end(self) -> None:
        self.process.communicate(timeout=300)
        assert self.process.returncode == 0


@dataclass(frozen=True)
class Day:
    """What was seen at the end of a day."""

    meter: dict[str, float]
    campaign: dict[str, float]
    bridge_mb: float
    trace_mb: float
    journal_kb: float
    logs_mb: float
    """Both write-ahead logs."""

    def __str__(self) -> str:
        return (
            f"meter {self.meter['rss_mb']:.0f} MB, commit p95 {self.meter['commit_p95_ms']:.1f} ms |"
            f" campaign {self.campaign['rss_mb']:.0f} MB, write p95 {self.campaign['write_p95_ms']:.1f} ms,"
            f" run p95 {self.campaign['run_p95_ms']:.0f} ms, lists {self.campaign['list_ms']:.1f} ms |"
            f" bridge {self.bridge_mb:.0f} MB | trace {self.trace_mb:.0f} MB, journal {self.journal_kb:.0f} kB,"
            f" logs {self.logs_mb:.1f} MB"
        )


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[MeterRig]:
    with MeterRig(tmp_path, NODES) as lab:
        yield lab


def size(*paths: Path) -> int:
    return sum(path.stat().st_size for path in paths if path.exists())


@pytest.mark.slow
@pytest.mark.timeout(5400)
@pytest.mark.parametrize(("days", "rate_hz"), [(2, 1), (8, 10)])
def test_days_of_a_campaign(rig: MeterRig, tmp_path: Path, days: int, rate_hz: int) -> None:
    lab = tmp_path / "lab"
    state, results = lab / "orchestrator", lab / "results"
    for folder in (rig.state, state, results):
        folder.mkdir(parents=True)
    meter = Part("meter", str(rig.state), str(rate_hz))
    seen = [meter.day()]
    rig.start_bridge()
    assert rig.bridge is not None
    bridge = psutil.Process(rig.bridge.pid)
    campaign = Part("campaign", str(state), str(results), f"http://127.0.0.1:{rig.port}")
    trace, journal = rig.state / "trace.sqlite", state / "journal.sqlite"
    found: list[Day] = []
    for number in range(days):
        if number:
            seen.append(meter.day())
        of_campaign = campaign.day()
        found.append(
            Day(
                seen[-1], of_campaign, bridge.memory_info().rss / _MB, size(trace) / _MB, size(journal) / 1024,
                size(*(path.with_name(f"{path.name}-wal") for path in (trace, journal))) / _MB,
            )
        )  # fmt: skip
        print(f"day {number + 1}: {found[-1]}", flush=True)
    meter.end()
    campaign.end()
    _check_bounds(found)
    copies = JournalCopies(journal).newest_first()
    assert 0 < len(copies) <= KEPT and [damage_of(copy.path) for copy in copies] == [None] * len(copies)
    folder = results / CAMPAIGN
    for what in ("calc", "report"):
        assert peak_mb(what, folder) <= 300
    _check_backup(tmp_path, lab, days)


def _check_bounds(found: list[Day]) -> None:
    """Nothing grows from the second day to the last but the files, by the same amount every day."""
    second, last = found[1], found[-1]
    for before, after in (
        (second.meter["rss_mb"], last.meter["rss_mb"]), (second.campaign["rss_mb"], last.campaign["rss_mb"]),
        (second.bridge_mb, last.bridge_mb),
    ):  # fmt: skip
        assert after <= max(1.15 * before, before + 25), (before, after)
    assert max(day.meter["rss_mb"] for day in found) < 200
    assert max(day.bridge_mb for day in found) < 200
    assert max(day.campaign["rss_mb"] for day in found) < 300
    assert max(day.campaign["write_p95_ms"] for day in found) < WRITE_MS
    assert max(day.campaign["list_ms"] for day in found) < 2 * WRITE_MS
    assert last.trace_mb / len(found) == pytest.approx(second.trace_mb / 2, rel=0.05)
    assert last.journal_kb / len(found) < 1.5 * second.journal_kb / 2
    assert max(day.logs_mb for day in found) < 64


def _check_backup(tmp_path: Path, lab: Path, days: int) -> None:
    saved, target = tmp_path / "saved", tmp_path / "restored"
    saved.mkdir()
    archive = backup("save", str(saved), "--state", str(lab))
    print(f"backup: {Path(archive).stat().st_size / _MB:.0f} MB")
    backup("restore", archive, "--state", str(target))
    for path in sorted((lab / "results").rglob("*")):
        if path.is_file():
            assert filecmp.cmp(path, target / path.relative_to(lab), shallow=False), path
    assert not (target / "orchestrator/journal-copies").exists()

    async def runs() -> dict[str, int]:
        async with open_journal(target / "orchestrator/journal.sqlite") as journal:
            return await journal.runs_done()

    assert asyncio.run(runs()) == {CAMPAIGN: days * RUNS_A_DAY}
    assert peak_mb("calc", target / "results" / CAMPAIGN) <= 300
