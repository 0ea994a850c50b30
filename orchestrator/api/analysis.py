"""`GET /v1/campaigns/{id}/analysis`: what a campaign says as a whole, with its probabilities.

Estimated from the result files of the finished runs; not here: the estimates themselves (`orchestrator.domain`).
"""

import asyncio
from pathlib import Path

from fastapi import APIRouter

from orchestrator.campaign.service import CampaignService
from orchestrator.domain.analysis.curve import BestChance, OperatingPoint
from orchestrator.domain.analysis.methods import MethodPair
from orchestrator.domain.analysis.pareto import ParetoPoint
from orchestrator.domain.run.findings import Validity
from orchestrator.reports.hypotheses import Hypothesis, hypotheses
from orchestrator.reports.research_questions import Recommendation, ResearchAnswer, answers_of, recommendation_of
from orchestrator.results.read_model import load_results
from shared.kernel.records import CampaignId, Record


class CampaignAnalysis(Record):
    """What the finished runs of a campaign say together; empty where nothing can be compared yet."""

    recommendation: Recommendation
    hypotheses: tuple[Hypothesis, ...] = ()
    operating_points: tuple[OperatingPoint, ...] = ()
    best_chances: tuple[BestChance, ...] = ()
    pareto: tuple[ParetoPoint, ...] = ()
    methods: tuple[MethodPair, ...] = ()
    questions: tuple[ResearchAnswer, ...] = ()
    validity: Validity = Validity()


def analysis_router(service: CampaignService) -> APIRouter:
    """Return the endpoint of a campaign's analysis."""
    router = APIRouter(prefix="/v1", tags=["campaigns"])

    @router.get("/campaigns/{campaign_id}/analysis")
    async def analysis(campaign_id: CampaignId) -> CampaignAnalysis:
        """Return hypotheses, operating points, Pareto frontier and recommendation as they stand now."""
        await service.journal.find(campaign_id)
        return await asyncio.to_thread(_analysis, service.lab.settings.results_dir / campaign_id)

    return router


def _analysis(folder: Path) -> CampaignAnalysis:
    if not (folder / "campaign.json").exists():
        none = Recommendation(configuration_id=None, sentence="No recommendation: no run is finished yet.")
        return CampaignAnalysis(recommendation=none)
    found = load_results(folder)
    return CampaignAnalysis(
        recommendation=recommendation_of(found), hypotheses=hypotheses(found.hypotheses),
        operating_points=found.operating_points, best_chances=found.best_chances, pareto=found.pareto,
        methods=found.method_pairs,
        questions=answers_of(found), validity=found.validity,
    )  # fmt: skip
