"""A small synthetic lab for the tests of domain and reports: traces with known power, runs made of real records."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from orchestrator.domain.campaign.matrix import parse_selection
from orchestrator.domain.campaign.protocol import DEMO_RULES, AccuracyTask, MeasurementProtocol
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.run.alignment import Trace
from orchestrator.domain.run.evaluate import EvaluatedRun, evaluate_run
from orchestrator.domain.run.records import MarkerLoad, Provenance, RunInput
from orchestrator.results.files import run_files, write_run
from shared.files.atomic import write_file
from shared.files.trace_csv import TraceCsvWriter
from shared.kernel.records import Configuration, Instrument, QuestionResult, TokenLedger, Window
from shared.wire.meter_api import SampleBlock

T0 = 1_790_000_000_123_456_789
NS = 1_000_000_000
INSTRUMENT = Instrument(
    name="epi-meter", kind="emulated", emulated=True, firmware="emu-1", measurement_point="emulated AC inlet",
    sample_rate_hz=10, relative_uncertainty=0.01,
)  # fmt: skip
PROTOCOL = MeasurementProtocol(
    accuracy={
        "mmlu_5shot": AccuracyTask(tasks=("demo_mmlu_2shot",)),
        "arc_challenge_25shot": AccuracyTask(tasks=("demo_arc_3shot",)),
        "hellaswag_10shot": AccuracyTask(tasks=("demo_hellaswag_2shot",)),
    },
    accuracy_note="demo tasks of the same style, not the real suites",
    rules=DEMO_RULES,
)


def block(
    power: Mapping[str, Callable[[float], float]], seconds: float, hz: float = 10.0, late_s: float = 0.0
) -> SampleBlock:
    """Sample power functions of time (s since T0) from -3 s on; `late_s` is how late the meter stamps them."""
    count = int((seconds + 6) * hz)
    times = [-3 + i / hz for i in range(count)]
    return SampleBlock(
        instrument=INSTRUMENT,
        utc_ns=tuple(T0 + round((t + late_s) * NS) for t in times),
        power_w={node: tuple(float(f(t)) for t in times) for node, f in power.items()},
    )


def traces_of(samples: SampleBlock) -> dict[str, Trace]:
    """Return one trace a node, without the samples a channel did not send; shared times are one array."""
    times = np.array(samples.utc_ns, dtype=np.int64)
    traces = {}
    for node in sorted(samples.power_w):
        power = np.array(samples.power_w[node], dtype=np.float64)  # null becomes NaN
        known = np.isfinite(power)
        traces[node] = Trace(node, times if known.all() else times[known], power[known])
    return traces


def evaluate(run: RunInput, samples: SampleBlock, asked: Sequence[QuestionResult]) -> EvaluatedRun:
    """Evaluate a run from samples, with the register and the events that came with them."""
    return evaluate_run(with_meter_record(run, samples), traces_of(samples), asked)


def with_meter_record(run: RunInput, samples: SampleBlock) -> RunInput:
    register = samples.energy_register_j if run.energy_register_j is None else run.energy_register_j
    return run.model_copy(update={"energy_register_j": register, "meter_events": run.meter_events or samples.events})


def trace_csv(samples: SampleBlock) -> bytes:
    out = io.BytesIO()
    TraceCsvWriter(out).add(samples.utc_ns, samples.power_w)
    return out.getvalue()


def write_measured(root: Path, run: RunInput, samples: SampleBlock, asked: Sequence[QuestionResult]) -> None:
    """Evaluate a run and write all of its files."""
    write_file(run_files(root, run.reference)["power_trace"], trace_csv(samples))
    write_run(root, with_meter_record(run, samples), evaluate(run, samples, asked), asked)


def at(seconds: float) -> int:
    return T0 + round(seconds * NS)


def window(label: str, start_s: float, end_s: float, **ledger: int) -> Window:
    return Window(label=label, start_utc_ns=at(start_s), end_utc_ns=at(end_s), ledger=TokenLedger(**ledger))  # type: ignore[arg-type]


def questions(correct: Sequence[int], per_task: int = 20) -> tuple[QuestionResult, ...]:
    """`correct[i]` of `per_task` questions right in each of the three demo tasks."""
    tasks = ("demo_mmlu_2shot", "demo_arc_3shot", "demo_hellaswag_2shot")
    return tuple(
        QuestionResult(
            task=task, question_id=f"q{i}", subject=f"s{i % 4}", target=0, choice=0 if i < right else 1,
            correct=i < right, metric="acc", log_likelihoods=(-1.0, -2.0, -3.0, -4.0), ledger=TokenLedger(scored=4),
        )
        for task, right in zip(tasks, correct, strict=True)
        for i in range(per_task)
    )  # fmt: skip


def configuration(identity: str) -> Configuration:
    return next(c for c in parse_selection(identity) if c.id == identity)


MARKER = MarkerLoad(node="n1", start_utc_ns=at(2.2), end_utc_ns=at(4.7), on=((at(2.7), at(3.2)), (at(3.7), at(4.2))))


def run_input(identity: str = "baseline", repetition: int = 1, **changes: object) -> RunInput:
    values: dict[str, object] = {
        "run_id": str(RunReference(configuration=identity, repetition=repetition)),
        "campaign_id": "test",
        "configuration": configuration(identity),
        "repetition": repetition,
        "timestamp_utc_ns": T0,
        "model": "demo-moe",
        "hardware": "4 emulated nodes",
        "instrument": INSTRUMENT,
        "windows": (
            window("idle", 0.0, 2.0),
            window("marker", 2.2, 4.7),
            window("prefill", 5.0, 7.0, prompt=1000),
            window("decode", 7.5, 9.5, generated=400),
            window("score", 10.0, 14.0, scored=240, prompt=3000),
        ),
        "markers": (MARKER,),
        "provenance": Provenance(engine="llama.cpp", lm_eval_version="0.4.13"),
        "protocol": PROTOCOL,
    }
    return RunInput.model_validate({**values, **changes})


def load(t: float) -> float:
    """Watts of one node: 3 W idle, more in the marker and in the work windows."""
    if 2.7 <= t < 3.2 or 3.7 <= t < 4.2:
        return 7.0
    if 5.0 <= t < 7.0 or 7.5 <= t < 9.5 or 10.0 <= t < 14.0:
        return 9.0
    return 3.0
