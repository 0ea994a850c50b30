"""Joules of single questions, where the sampling allows it, and the reason where it does not.

A question's energy is known only when its own time is recorded, no other question runs in that time (batched scoring
shares the machine), and it spans enough samples that the edges do not decide.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.domain.run.alignment import NS, Trace, integrate_all
from shared.kernel.records import NodeName, QuestionResult, Record

MIN_SAMPLES = 5
"""Fewer samples inside a question leave an edge error of a fifth of the swing or more."""


class QuestionEnergy(Record):
    """Energy of one question in joules, or the reason why there is none."""

    joules: float | None = None
    reason: str = ""


class QuestionEnergySummary(Record):
    """How many questions have an energy of their own, and why the others have none."""

    resolved: int
    unresolved: dict[str, int]
    median_joules: float | None = None


_UNTIMED = QuestionEnergy(reason="its time was not recorded")
_TOGETHER = QuestionEnergy(reason="it ran together with other questions")
_SHORT = QuestionEnergy(reason=f"it is shorter than {MIN_SAMPLES} samples of the meter")
_UNCOVERED = QuestionEnergy(reason="the trace does not cover it")


def question_energies(
    traces: Mapping[NodeName, Trace], questions: Sequence[QuestionResult], *, lag_s: float, gap_limit_s: float
) -> tuple[QuestionEnergy, ...]:
    """Return one entry a question, in order; cluster energy over its own time, shifted by the lag."""
    spans = np.array([(q.start_utc_ns or 0, q.end_utc_ns or 0) for q in questions], dtype=np.int64).reshape(-1, 2)
    known = np.array([q.start_utc_ns is not None and q.end_utc_ns is not None for q in questions], dtype=bool)
    alone = _alone(spans, known)
    interval_ns = max((float(np.median(np.diff(t.utc_ns))) for t in traces.values() if t.utc_ns.size > 1), default=0.0)
    shift = round(lag_s / NS)
    out: list[QuestionEnergy] = []
    for (start, end), timed, single in zip(spans.tolist(), known.tolist(), alone.tolist(), strict=True):
        if not timed:
            out.append(_UNTIMED)
        elif not single:
            out.append(_TOGETHER)
        elif not traces or end - start < MIN_SAMPLES * interval_ns:
            out.append(_SHORT)
        else:
            parts = integrate_all(traces, start + shift, end + shift, gap_limit_s).values()
            energies = [part.energy_j for part in parts if part.energy_j is not None]
            out.append(QuestionEnergy(joules=sum(energies)) if len(energies) == len(parts) else _UNCOVERED)
    return tuple(out)


def summarise_questions(entries: Sequence[QuestionEnergy]) -> QuestionEnergySummary:
    """Count the reasons and take the median."""
    joules = [entry.joules for entry in entries if entry.joules is not None]
    reasons: dict[str, int] = {}
    for entry in entries:
        if entry.joules is None:
            reasons[entry.reason] = reasons.get(entry.reason, 0) + 1
    median = float(np.median(joules)) if joules else None
    return QuestionEnergySummary(resolved=len(joules), unresolved=dict(sorted(reasons.items())), median_joules=median)


def _alone(spans: np.typing.NDArray[np.int64], known: np.typing.NDArray[np.bool_]) -> np.typing.NDArray[np.bool_]:
    """Return which known spans overlap no other known span."""
    alone = known.copy()
    index = np.flatnonzero(known)
    order = index[np.argsort(spans[index, 0], kind="stable")]
    latest_end, latest_row = -1, -1
    for row in order.tolist():
        if spans[row, 0] < latest_end:
            alone[row] = alone[latest_row] = False
        if spans[row, 1] > latest_end:
            latest_end, latest_row = int(spans[row, 1]), row
    return alone
