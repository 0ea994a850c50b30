"""A suite from published accuracy fields and the tasks that fill them, as tests write them."""

from collections.abc import Mapping
from pathlib import Path

from orchestrator.benchmarks.records import SuiteSpec, TaskSpec
from orchestrator.domain.campaign.accuracy_tasks import PUBLISHED


def suite_of_roles(
    roles: Mapping[str, str], *, questions: int | None, seed: int, include_paths: tuple[Path, ...] = ()
) -> SuiteSpec:
    """Return the suite; a task that is not the field's own benchmark stands in for it."""
    tasks = tuple(
        TaskSpec(name=name, role=role, shots=PUBLISHED[role][1] if name == PUBLISHED[role][0] else None,
                 stands_in=name != PUBLISHED[role][0])
        for role, name in roles.items()
    )  # fmt: skip
    return SuiteSpec(tasks=tasks, questions=questions, seed=seed, include_paths=include_paths)
