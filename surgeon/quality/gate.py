"""The quality gate: stops a variant before deployment and says why."""

from shared.wire.surgeon_jobs import ValidateResult
from surgeon.quality.sanity import Evaluation


def verdict(variant: Evaluation, baseline: Evaluation | None, *, max_perplexity_ratio: float) -> ValidateResult:
    """Compare a variant with its baseline.

    It fails when its perplexity is over `max_perplexity_ratio` times the baseline's, or when more than half of the
    sanity prompts get a degenerate answer that the baseline does not give. A wrong answer alone stops nothing: how
    much a variant forgets is what a campaign measures.
    """
    reasons: list[str] = []
    if variant.perplexity is not None and baseline is not None and baseline.perplexity is not None:
        ratio = variant.perplexity / baseline.perplexity
        if ratio > max_perplexity_ratio:
            reasons.append(f"perplexity is {ratio:.3g} times the baseline's, allowed is {max_perplexity_ratio:g}")
    fine_before = {answer.prompt for answer in baseline.answers if not _degenerate(answer.reason)} if baseline else None
    broken = [
        answer
        for answer in variant.answers
        if _degenerate(answer.reason) and (fine_before is None or answer.prompt in fine_before)
    ]
    if len(broken) * 2 > len(variant.answers):
        reasons.append(f"{len(broken)} of {len(variant.answers)} sanity prompts got no text ({broken[0].reason})")
    return ValidateResult(
        ok=not reasons, reason="; ".join(reasons), perplexity=variant.perplexity,
        baseline_perplexity=baseline.perplexity if baseline else None, answers=variant.answers,
    )  # fmt: skip


def _degenerate(reason: str) -> bool:
    return reason.startswith("degenerate")
