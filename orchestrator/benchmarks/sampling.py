"""Seeded, stratified choice of questions. Pure; the same seed gives the same questions on every machine."""

import random
from collections.abc import Hashable, Sequence


def stratified_indices(strata: Sequence[Hashable], n: int | None, seed: str) -> list[int]:
    """Choose `n` of `len(strata)` questions so that every stratum has its share.

    Shares are proportional to the strata's sizes, rounded by largest remainder; ties go to a seeded order. Within a
    stratum the questions are the first of a seeded shuffle.

    Args:
        strata: Stratum of each question (an MMLU subject, say).
        n: How many to choose; None or more than there are chooses all.
        seed: Any text; random.Random hashes it with SHA-512, so it does not depend on the process or platform.

    Returns:
        Ascending indices into `strata`.
    """
    if n is None or n >= len(strata):
        return list(range(len(strata)))
    members: dict[Hashable, list[int]] = {}
    for index, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(index)
    chosen: list[int] = []
    for stratum, count in _shares(members, n, len(strata), seed).items():
        chosen += random.Random(f"{seed}/{stratum}").sample(members[stratum], count)
    return sorted(chosen)


def few_strata_indices(strata: Sequence[Hashable], n: int, seed: str) -> list[int]:
    """Choose `n` questions from as few strata as hold them: each stratum has a few-shot prefix that must be paid for.

    Strata come in a seeded order and are taken whole; of the last one the first of a seeded shuffle.

    Returns:
        Ascending indices into `strata`; all where there are not more than `n`.
    """
    members: dict[Hashable, list[int]] = {}
    for index, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(index)
    order = sorted(members, key=str)
    random.Random(f"{seed}/strata").shuffle(order)
    chosen: list[int] = []
    for stratum in order:
        left = n - len(chosen)
        if left <= 0:
            break
        indices = members[stratum]
        chosen += random.Random(f"{seed}/{stratum}").sample(indices, min(left, len(indices)))
    return sorted(chosen)


def _shares(members: dict[Hashable, list[int]], n: int, total: int, seed: str) -> dict[Hashable, int]:
    whole = {stratum: n * len(indices) // total for stratum, indices in members.items()}
    missing = n - sum(whole.values())
    order = sorted(members, key=str)
    random.Random(f"{seed}/ties").shuffle(order)
    order.sort(key=lambda stratum: n * len(members[stratum]) % total, reverse=True)  # stable sort
    for stratum in order[:missing]:
        whole[stratum] += 1
    return whole
