"""Attempts that were open when the last orchestrator died: those that measured all are evaluated, others explained.

Not here: evaluating them (`evaluator`), what becomes of their runs (`run_loop`).
"""

from orchestrator.campaign.attempt_ends import AttemptEnds
from orchestrator.campaign.lab import Lab
from orchestrator.campaign.pending import PendingEvaluation, PendingEvaluations
from orchestrator.campaign.recovery import what_became_of
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.store.journal import Journal
from orchestrator.store.records import Attempt, RunFigures
from shared.kernel.errors import DataError
from shared.kernel.records import CampaignId


async def close_open_attempts(
    journal: Journal, lab: Lab, campaign: CampaignId, kept: PendingEvaluations, ends: AttemptEnds
) -> list[PendingEvaluation]:
    """Explain every attempt of a campaign that is open; return those that can be evaluated."""
    found = []
    for run, attempts in (await journal.attempts(campaign)).items():
        for attempt in attempts:
            if attempt.outcome is not None:
                kept.forget(run, attempt.number)
                ends.forget(run, attempt.number)
            elif (pending := await _close(journal, lab, campaign, run, attempt, kept, ends)) is not None:
                found.append(pending)
    return found


async def _close(
    journal: Journal,
    lab: Lab,
    campaign: CampaignId,
    run: RunReference,
    attempt: Attempt,
    kept: PendingEvaluations,
    ends: AttemptEnds,
) -> PendingEvaluation | None:
    """Return what was measured, if it is not evaluated yet; any other attempt has its outcome afterwards."""
    number, damage = attempt.number, ""
    known = await journal.last_result(campaign, run, "evaluate")
    if known is not None and RunFigures.model_validate(known).attempt == number:
        await journal.end_attempt(campaign, run, number, "done")
    elif (end := ends.noted(run, number)) is not None:
        await journal.end_attempt(campaign, run, number, end.outcome, reason=end.reason, fault=end.fault)
    else:
        try:
            if (pending := kept.find(run, number)) is not None:
                return pending
        except DataError as error:
            damage = f"; what it had measured is lost: {error}"
        reason = f"the orchestrator died during {attempt.step or 'the start'}"
        if (last := await journal.last_job(campaign, run, number)) is not None:
            reason += f"; its last job: {await what_became_of(lab, last)}"
        await journal.end_attempt(
            campaign, run, number, "interrupted", reason=reason + damage, fault="infrastructure"
        )  # fmt: skip
    kept.forget(run, number)
    ends.forget(run, number)
    return None
