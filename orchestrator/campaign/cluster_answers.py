"""The cluster answers all questions once, before the windows of the first run that needs them, unmetered and resumable.

Not here: the sample that it is asked in a score window (`scoring`), and how answers are kept (`answers`).
"""

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Literal

from orchestrator.benchmarks.answer_sets import AnswerSet
from orchestrator.campaign.answers import AnswerMaker
from orchestrator.campaign.asking import R
from orchestrator.campaign.cluster import Cluster
from orchestrator.campaign.lab import Lab
from orchestrator.campaign.measured import AttemptPlace
from orchestrator.campaign.preparation import Variant
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.run.records import ServedBy
from shared.wire.node_jobs.workloads import GenerateParams, ScoreParams


class ClusterAnswers:
    """Lets the nodes of an attempt answer what is not known yet."""

    def __init__(self, lab: Lab, maker: AnswerMaker, on_step: Callable[[RunReference, str], None]) -> None:
        self._lab = lab
        self._maker = maker
        self._on_step = on_step

    async def answers(
        self, cluster: Cluster, place: AttemptPlace, variant: Variant, served: ServedBy | None
    ) -> AnswerSet:
        """Return the answers to all questions; `served` is who has the scored file loaded, None loads it first.

        Raises:
            EpiError: a node failed; what was answered until then is kept.
        """
        facts = await asyncio.gather(*(self._lab.facts(name) for name in place.nodes))
        key = self._maker.key(place.configuration, variant.scored.request.sha256, facts)
        if (known := await self._maker.known(key)) is not None:
            return known
        self._on_step(place.run, "answers")
        if served is None:
            served = await cluster.serve_scoring(place, "answers", variant.scored)
        parts = count(1)

        async def ask(kind: Literal["score", "generate"], params: ScoreParams | GenerateParams, result: type[R],
                      timeout_s: float, *, first: bool) -> R:  # fmt: skip
            return await cluster.job(place, "answers", kind, params, result, timeout_s, part=next(parts))

        return await self._maker.make(key, served, ask)
