"""A run of hours for the reader and the evaluation, and what each of them needs of memory, measured in a process alone.

`python -m tests.support.long_run WHAT ...` does one thing and prints its peak memory in MB. Not here: the trace itself
(`long_trace`).
"""

import asyncio
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from orchestrator.campaign.evaluation import evaluate
from orchestrator.campaign.pending import PendingEvaluation
from orchestrator.campaign.trace import TraceReading
from orchestrator.results.files import run_files, write_campaign, write_run
from orchestrator.results.schema import CampaignFile
from shared.wire.client import AgentClient
from tests.support.domain_lab import PROTOCOL, configuration, questions, run_input
from tests.support.long_trace import INSTRUMENT, LONG_AGO_UTC_NS, NS

NAMES = ("baseline", "drop4_all")
PROTOCOL_OF_A_LAB = PROTOCOL.model_copy(update={"rules": PROTOCOL.rules.model_copy(update={"gap_limit_s": 2.0})})
"""A lab's meter may send once a second; the demo's limit of half a second is for its own 10 Hz."""


def pending(name: str, hours: float) -> PendingEvaluation:
    """A run that fills the trace: a marker at its start, a long decode window, a score window at its end."""
    end_s = round(hours * 3600)
    at = lambda seconds: LONG_AGO_UTC_NS + seconds * NS  # noqa: E731
    windows = [
        {"label": label, "start_utc_ns": at(begin), "end_utc_ns": at(end),
         "ledger": {"generated": 90_000, "prompt": 9_000, "scored": 9_000}}
        for label, begin, end in (
            ("idle", 60, 120), ("prefill", 180, 600), ("decode", 620, end_s * 3 // 4),
            ("score", end_s * 3 // 4 + 20, end_s - 60),
        )
    ]  # fmt: skip
    run = run_input(
        name, 1, windows=tuple(windows), markers=(), timestamp_utc_ns=at(60), instrument=INSTRUMENT.model_dump(),
        protocol=PROTOCOL_OF_A_LAB,
    )  # fmt: skip
    return PendingEvaluation(
        run=run, questions=questions((14, 14, 14)), trace_start_utc_ns=LONG_AGO_UTC_NS, trace_end_utc_ns=at(end_s)
    )


async def _never() -> None:
    """Nobody asks the campaign to stop."""


def fetch_traces(url: str, folder: Path, hours: float) -> None:
    """Read both runs' traces from the bridge, evaluate them and write their files, as a campaign does."""

    async def read(one: PendingEvaluation, file: Path) -> None:
        client = AgentClient(url, None)
        try:
            reading = TraceReading(client, 60.0, _never, lambda _: None)
            window = await reading.to_file(one.run.reference, one.trace_start_utc_ns, one.trace_end_utc_ns, file)
        finally:
            await client.close()
        run, evaluated = evaluate(one, window, file)
        write_run(folder, run, evaluated, one.questions)

    items = tuple(map(configuration, NAMES))
    head = CampaignFile(
        campaign_id="long", model="demo-moe", hardware="4 emulated nodes", instrument=INSTRUMENT,
        created_utc_ns=LONG_AGO_UTC_NS, repetitions=1, configurations=items, protocol=PROTOCOL_OF_A_LAB,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    write_campaign(folder, head)
    for name in NAMES:
        one = pending(name, hours)
        file = run_files(folder, one.run.reference)["power_trace"]
        file.parent.mkdir(parents=True, exist_ok=True)
        asyncio.run(read(one, file))


def calc(folder: Path) -> None:
    """Recompute every run; nothing may differ."""
    from orchestrator.results.recompute import recompute_campaign

    for run in recompute_campaign(folder):
        assert run.written is not None and not run.differences, run.differences


def validate(folder: Path) -> None:
    """Judge the tree; its files and figures hold."""
    from orchestrator.results.validate import validate_submission

    wrong = [d for d in validate_submission(folder) if d.severity == "FAIL" and "recomputed" in d.what]
    assert not wrong, wrong


def report(folder: Path) -> None:
    """Write summary, report and figures."""
    from orchestrator.reports.publish import publish

    publish(folder)
    assert (folder / "report.html").stat().st_size < 20_000_000


def view(folder: Path) -> None:
    """Look at the whole run and at a part of it, as the dashboard does."""
    from orchestrator.results.power_view import PowerViews

    views, path = PowerViews(), run_files(folder, pending(NAMES[0], 1).run.reference)["power_trace"]
    whole = views.view(path, None, None, 800)
    part = views.view(path, whole.start_utc_ns, whole.start_utc_ns + 60 * NS, 800)
    assert 700 < len(whole.utc_s) < 900 and part.utc_s


def main() -> None:
    """Do one thing and print the peak memory of this process in MB."""
    what, folder = sys.argv[1], Path(sys.argv[2])
    acts: dict[str, Callable[[Path], None]] = {"calc": calc, "validate": validate, "report": report, "view": view}
    if what == "fetch_traces":
        fetch_traces(sys.argv[3], folder, float(sys.argv[4]))
    else:
        acts[what](folder)
    print(own_peak_mb(), round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def own_peak_mb() -> int:
    """Return the peak of this process alone: ru_maxrss also counts what the parent held when it started this one."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return round(int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) / 1024)


if __name__ == "__main__":
    main()
