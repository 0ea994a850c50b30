"""Figures of the EPI calculation: `python -m tests.bench.bench_epi [--campaigns N]`.

1. EPI of 75 runs over a 24 h, 50 Hz, 4-channel trace: wall time and the process's peak memory (budget 1 s, 200 MB).
2. Simulation study of the statistics (budget: coverage 94..96 %, false alarms <= 5.5 %, power within 5 points).
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from math import log
from pathlib import Path

import numpy as np

HZ, HOURS, NODES, RUNS = 50, 24, 4, 75
T0 = 1_790_000_000_000_000_000


def make_trace(path: Path) -> None:
    """Write 24 h of 4 channels as raw columns: times int64, then one float64 column a node; in bounded memory."""
    n = HZ * HOURS * 3600
    rng = np.random.default_rng(1)
    with path.open("wb") as file:
        for _ in range(HOURS):
            file.write(b"\0" * (8 * n // HOURS))
        file.seek(0)
        for hour in range(HOURS):
            i = np.arange(hour * n // HOURS, (hour + 1) * n // HOURS, dtype=np.int64)
            file.write((T0 + i * (1_000_000_000 // HZ)).tobytes())
        for node in range(NODES):
            for hour in range(HOURS):
                t = np.arange(hour * n // HOURS, (hour + 1) * n // HOURS) / HZ % (HOURS * 3600 / RUNS)
                marker = (t >= 125) & (t < 155) & ((t // 5).astype(int) % 2 == 1)
                watts = 4 + 4.0 * marker + 5.0 * (t >= 170) + 0.5 * node + rng.normal(0, 0.2, t.size)
                file.write(watts.tobytes())


def evaluate_all(path: Path) -> dict[str, float]:
    """Evaluate 75 runs, reading each run's part of the trace; return seconds and peak memory in MB."""
    from orchestrator.domain.run.alignment import Trace
    from orchestrator.domain.run.evaluate import evaluate_run
    from orchestrator.domain.run.records import MarkerLoad
    from shared.kernel.records import QuestionResult, TokenLedger, Window
    from tests.support.domain_lab import PROTOCOL, run_input

    n, second = HZ * HOURS * 3600, 1_000_000_000
    span = HOURS * 3600 // RUNS
    runs = []
    for k in range(RUNS):
        t = T0 + k * span * second
        plan = (("idle", 10, 110), ("prefill", 180, 300), ("decode", 310, 910), ("score", 920, span - 10))
        windows = tuple(
            Window.model_validate(
                {"label": label, "start_utc_ns": t + a * second, "end_utc_ns": t + b * second,
                 "ledger": TokenLedger(generated=9000, prompt=9000)}
            )
            for label, a, b in plan
        )  # fmt: skip
        on = tuple((t + (125 + 10 * j) * second, t + (130 + 10 * j) * second) for j in range(3))
        marker = MarkerLoad(node="n0", start_utc_ns=t + 120 * second, end_utc_ns=t + 160 * second, on=on)
        runs.append(run_input("baseline", k + 1, windows=windows, markers=(marker,)))
    questions = tuple(
        QuestionResult(
            task=task.tasks[0], question_id=f"q{i}", target=0, choice=i % 2, correct=i % 2 == 0, metric="acc",
            log_likelihoods=(-1.0, -2.0),
        )
        for task in PROTOCOL.accuracy.values()
        for i in range(200)
    )  # fmt: skip
    began, began_cpu = time.perf_counter(), time.process_time()
    values = []
    with path.open("rb") as file:
        for k, run in enumerate(runs):
            low, count = max(k * span * HZ - HZ * 5, 0), span * HZ + HZ * 10
            count = min(count, n - low)
            columns = []
            for column in range(NODES + 1):
                file.seek(8 * (column * n + low))
                columns.append(np.fromfile(file, np.int64 if column == 0 else np.float64, count))
            traces = {f"n{j}": Trace(f"n{j}", columns[0], columns[j + 1]) for j in range(NODES)}  # type: ignore[arg-type]
            values.append(evaluate_run(run, traces, questions).evaluation.epi.value)
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    assert all(value is not None for value in values)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "runs": RUNS, "samples": n * NODES, "seconds": round(seconds, 3), "cpu_seconds": round(cpu, 3),
        "peak_rss_mb": round(peak, 1),
    }  # fmt: skip


def bench_trace() -> dict[str, float]:
    """Make the trace, evaluate it in a fresh process (so that only its own memory counts) and return its figures."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.bin"
        make_trace(path)
        command = [sys.executable, "-m", "tests.bench.bench_epi", "--evaluate", str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        result: dict[str, float] = json.loads(done.stdout)
        return result


def bench_statistics(campaigns: int) -> list[dict[str, object]]:
    """Return the figures of the simulation study, each with its budget."""
    from tests.bench.epi_study import Truth, predicted_power, sequential_study, study

    falling = Truth(
        accuracy=(0.7, 0.7, 0.69, 0.69, 0.68, 0.66, 0.64, 0.6, 0.5), log_energy=tuple(-0.01 * i for i in range(9)),
        discordance=0.1,
    )  # fmt: skip
    rows: list[dict[str, object]] = []

    def row(name: str, value: float, low: float, high: float) -> None:
        ok = low <= value <= high
        rows.append({"figure": name, "value": round(value, 4), "budget": f"{low:g}..{high:g}", "ok": ok})

    null = study(Truth(), campaigns, 11)
    row("coverage of 95 % intervals, no difference", null.coverage, 0.94, 0.96)
    row("false alarms over 8 comparisons", null.any_claim, 0, 0.055)
    whole = study(Truth(accuracy=(0.7,) * 25, log_energy=(0.0,) * 25), campaigns, 12)
    row("coverage, 25 configurations", whole.coverage, 0.94, 0.96)
    row("false alarms over 24 comparisons", whole.any_claim, 0, 0.055)
    row("coverage, accuracy and energy fall", study(falling, campaigns, 13).coverage, 0.94, 0.96)
    small = Truth(questions=(171, 100, 100))
    row("coverage, 371 questions", study(small, campaigns, 14).coverage, 0.94, 0.96)
    for questions, seed in (((570, 300, 300), 15), ((342, 200, 200), 16), ((285, 150, 150), 17)):
        energy = (0.0,) * 4 + (log(0.95),) + (0.0,) * 4
        truth = Truth(questions=questions, log_energy=energy)
        found, promised = float(study(truth, campaigns, seed).claims[4]), predicted_power(truth, 0.05)
        row(f"power minus promised {promised:.3f}, {sum(questions)} questions", found - promised, -0.05, 0.05)
    row("false alarms, sequential with 5 looks", sequential_study(Truth(repetitions=6), campaigns, 18), 0, 0.055)
    return rows


def main() -> None:
    """Print the figures; exit code 1 when one is over its budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--campaigns", type=int, default=10_000)
    parser.add_argument("--evaluate", type=Path)
    arguments = parser.parse_args()
    if arguments.evaluate:
        print(json.dumps(evaluate_all(arguments.evaluate)))
        return
    trace = bench_trace()
    # One thread: on an idle machine wall and CPU time agree; beside other work only the CPU time is ours.
    ok = trace["cpu_seconds"] <= 1 and trace["peak_rss_mb"] <= 200
    print(f"EPI of {trace['runs']} runs, {trace['samples']:,} samples: {trace['cpu_seconds']} s of CPU (budget 1),"
          f" {trace['seconds']} s wall,"
          f" {trace['peak_rss_mb']} MB peak (budget 200)", flush=True)  # fmt: skip
    for row in bench_statistics(arguments.campaigns):
        ok = ok and bool(row["ok"])
        print(f"{row['figure']}: {row['value']} (budget {row['budget']}){'' if row['ok'] else '  OVER'}", flush=True)
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
