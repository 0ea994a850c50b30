"""Finds which channel meters which node: a marker load is switched on one node at a time, and its channel rises.

Pure. Not here: stepping the load (the node agent's marker job) and fetching samples (`bridge`, `cli.find_channel`).
"""

import math
from collections.abc import Sequence

from shared.wire.meter_api import FoundChannel, MarkerRun, SampleBlock

SMALLEST_STEP_W = 0.3
CLEARLY = 3.0
"""The right channel must rise this many times as much as any other."""


def find_channel(run: MarkerRun, block: SampleBlock, lag_s: float = 0.0) -> FoundChannel:
    """Return whose channel rose with the marker; samples near its edges (0.2 s) are left out, since lag blurs them."""
    rises = {node: _rise(run, block.utc_ns, values, lag_s) for node, values in block.power_w.items()}
    ordered = sorted(rises, key=lambda node: rises[node], reverse=True)
    best = ordered[0] if ordered else None
    answered = None
    if best is not None and rises[best] >= SMALLEST_STEP_W:
        others = [abs(rises[node]) for node in ordered[1:]]
        if not others or rises[best] >= CLEARLY * max(others):
            answered = best
    return FoundChannel(node=run.node, rises_w=rises, answered_by=answered)


def _rise(run: MarkerRun, utc_ns: Sequence[int], power_w: Sequence[float | None], lag_s: float) -> float:
    edge_ns, lag_ns = 200_000_000, round(lag_s * 1e9)
    on: list[float] = []
    off: list[float] = []
    for at, value in zip(utc_ns, power_w, strict=True):
        moment = at - lag_ns
        if value is None or not run.start_utc_ns + edge_ns <= moment <= run.end_utc_ns:
            continue
        if any(start + edge_ns <= moment < end for start, end in run.on):
            on.append(value)
        elif not any(start - edge_ns <= moment < end + edge_ns for start, end in run.on):
            off.append(value)
    if not on or not off:
        return 0.0
    return math.fsum(on) / len(on) - math.fsum(off) / len(off)


def verdict(found: Sequence[FoundChannel]) -> tuple[str, ...]:
    """Return one sentence for each node whose own channel did not answer; empty when the wiring is right."""
    sentences = []
    for entry in found:
        if entry.answered_by is None:
            sentences.append(f"{entry.node}: no channel answered its marker clearly")
        elif not entry.is_right:
            sentences.append(f"{entry.node}: {entry.answered_by}'s channel answered; exchange CTs or `channels`")
    return tuple(sentences)
