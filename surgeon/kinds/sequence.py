"""Surgeries in order: checked as a whole before the first byte, done in as few passes as possible, proved step by step.

Parts of a plan that follow one another are one plan and one pass; every other surgery is a pass of its own, from file
to file, with what lies between in a folder beside the result that goes when it is done.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError

from shared.kernel.defects import first_defect
from shared.kernel.errors import ConfigurationError
from shared.kernel.progress import Progress, no_progress, part
from shared.kernel.records import SurgeryPlan, canonical_bytes
from surgeon.kinds.base import ModelFacts, Surgery
from surgeon.kinds.experts_per_token import ExpertsPerToken
from surgeon.kinds.merge_experts import MergeExperts
from surgeon.kinds.plan import Plan, PlanPart, plan_of
from surgeon.kinds.prune_experts import PruneExperts
from surgeon.verification.comparison import Verification


def surgeries_of(plan: SurgeryPlan) -> tuple[PlanPart, ...]:
    """Return the surgeries that a plan holds, in order; `passes` makes them that plan again."""
    parts: list[PlanPart] = [PruneExperts.of(plan)]
    if plan.merge is not None:
        parts.append(MergeExperts(matrices=plan.merge))
    if plan.experts_per_token is not None:
        parts.append(ExpertsPerToken(k=plan.experts_per_token))
    return tuple(parts)


def passes(surgeries: Sequence[Surgery], model: ModelFacts) -> list[Surgery]:
    """Return what is done, pass by pass, each checked against what the one before it leaves; a lone plan checks itself.

    Raises:
        ConfigurationError: nothing to do, or a surgery that cannot be done there.
    """
    groups = _groups(surgeries)
    if len(groups) == 1 and isinstance(only := _one(groups[0], model), Plan):
        return [only]  # it refuses by itself what cannot be done, before its first byte, in the words of the format
    return [step for step, _ in _checked(groups, model)]


def check(surgeries: Sequence[Surgery], model: ModelFacts) -> ModelFacts:
    """Return the facts of what all surgeries in order leave, before anything is read or written.

    Raises:
        ConfigurationError: one cannot be done there; it is named by its place and kind.
    """
    *_, (_, after) = _checked(_groups(surgeries), model)
    return after


def _groups(surgeries: Sequence[Surgery]) -> list[list[Surgery]]:
    groups: list[list[Surgery]] = []
    for surgery in surgeries:
        for one in surgeries_of(surgery.plan) if isinstance(surgery, Plan) else (surgery,):
            last = groups[-1][-1] if groups else None
            if isinstance(one, PlanPart) and isinstance(last, PlanPart) and one.place > last.place:
                groups[-1].append(one)
            else:
                groups.append([one])
    if not groups:
        raise ConfigurationError("no surgery is given")
    return groups


def _checked(groups: Sequence[Sequence[Surgery]], model: ModelFacts) -> Iterator[tuple[Surgery, ModelFacts]]:
    """Yield each pass, and what the model is after it."""
    for number, group in enumerate(groups, start=1):
        try:
            step = _one(group, model)
            model = step.check(model)
        except ConfigurationError as error:
            if len(groups) == 1:
                raise
            kinds = " and ".join(one.kind for one in group)
            where = f"pass {number} of {len(groups)} ({kinds})" + (f", {error.where}" if error.where else "")
            raise ConfigurationError(error.message, where=where, hint=error.hint) from error
        yield step, model


def _one(group: Sequence[Surgery], model: ModelFacts) -> Surgery:
    parts = [surgery for surgery in group if isinstance(surgery, PlanPart)]
    if not parts:
        return group[0]
    try:
        return Plan(plan=plan_of(parts, model.n_layers, model.n_experts))
    except ValidationError as error:
        raise ConfigurationError(first_defect(error).reason, where=parts[-1].kind) from error


def sequence_hash(surgeries: Sequence[Surgery]) -> str:
    """Return what names surgeries in order: the plan's hash where they are one plan, else that of their list."""
    if len(surgeries) == 1 and isinstance(plan := surgeries[0], Plan):
        return plan.plan.plan_hash()
    tables = [{"kind": one.kind, **one.model_dump(mode="json")} for one in surgeries]
    return hashlib.sha256(canonical_bytes(tables)).hexdigest()


def perform(surgeries: Sequence[Surgery], base: Path, target: Path, on_progress: Progress = no_progress) -> str:
    """Do the surgeries one after the other and return their hash; nothing is left when one fails.

    Raises:
        EpiError: what `passes` and the surgeries raise.
    """
    steps = passes(surgeries, ModelFacts.of(base))
    with _between(steps[:-1], base, target, on_progress, len(steps)) as before:
        steps[-1].apply(before, target, part(on_progress, 1 - 1 / len(steps), 1.0))
    return sequence_hash(steps)


def prove(surgeries: Sequence[Surgery], base: Path, result: Path) -> Verification:
    """Prove that `result` is what the surgeries make of `base`; what lies between is made again, and proved too.

    Raises:
        DataError: it is not; the first difference is named.
        EpiError: what `passes` and the surgeries raise.
    """
    steps = passes(surgeries, ModelFacts.of(base))
    proofs: list[Verification] = []
    with _between(steps[:-1], base, result, no_progress, len(steps), proofs) as before:
        proofs.append(steps[-1].prove(before, result))
    return proofs[-1].model_copy(
        update={
            "n_ranges": sum(proof.n_ranges for proof in proofs), "n_bytes": sum(proof.n_bytes for proof in proofs),
            "plan_sha256": sequence_hash(steps), "identical": all(proof.identical for proof in proofs),
        }
    )  # fmt: skip


@contextmanager
def _between(
    steps: Sequence[Surgery], base: Path, target: Path, on_progress: Progress, n_steps: int,
    proofs: list[Verification] | None = None,
) -> Iterator[Path]:  # fmt: skip
    """Yield what all steps but the last make of the base; with `proofs`, each is proved."""
    if not steps:
        yield base
        return
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        at = base
        for number, step in enumerate(steps):
            made = Path(folder) / f"{number}{base.suffix}"
            step.apply(at, made, part(on_progress, number / n_steps, (number + 1) / n_steps))
            if proofs is not None:
                proofs.append(step.prove(at, made))
            if at != base and at.is_file():
                at.unlink()
            at = made
        yield at
