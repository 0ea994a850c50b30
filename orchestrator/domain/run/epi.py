"""EPI = (E / T) / A: joules per token over task accuracy, lower is better. Without tokens or accuracy there is none."""

from orchestrator.domain.campaign.protocol import TokenBasis
from orchestrator.domain.run.energy import PhaseEnergy
from shared.kernel.records import Record, WindowLabel


class EpiValue(Record):
    """One EPI with what it is made of; `reason` says why the value is null."""

    value: float | None = None
    joules_per_token: float | None = None
    accuracy_composite: float | None = None
    reason: str = ""


PHASE_OF_BASIS: dict[TokenBasis, WindowLabel] = {
    "decode_generated": "decode",
    "prefill_prompt": "prefill",
    "benchmark_generated": "score",
}


def tokens_on(basis: TokenBasis, phase: PhaseEnergy) -> int:
    """Return the tokens that a basis counts in its phase: generated ones, or prompt tokens evaluated for prefill."""
    return phase.ledger.prompt if basis == "prefill_prompt" else phase.ledger.generated


def epi(basis: TokenBasis, phase: PhaseEnergy | None, accuracy: float | None, accuracy_reason: str = "") -> EpiValue:
    """Return EPI on `basis`; `phase` is the phase this basis belongs to (`PHASE_OF_BASIS`).

    Without energy, tokens or accuracy (A = 0 included) the value is null and the reason says so; never infinity.
    """
    if phase is None:
        return EpiValue(accuracy_composite=accuracy, reason=f"no {PHASE_OF_BASIS[basis]} window was measured")
    if phase.total_joules is None:
        return EpiValue(accuracy_composite=accuracy, reason=phase.reason)
    tokens = tokens_on(basis, phase)
    if tokens == 0:
        return EpiValue(accuracy_composite=accuracy, reason=f"no token on the basis {basis}")
    per_token = phase.total_joules / tokens
    if accuracy is None:
        return EpiValue(joules_per_token=per_token, reason=accuracy_reason or "no accuracy was measured")
    if accuracy == 0:
        return EpiValue(joules_per_token=per_token, accuracy_composite=0.0, reason="no question was answered correctly")
    return EpiValue(value=per_token / accuracy, joules_per_token=per_token, accuracy_composite=accuracy)
