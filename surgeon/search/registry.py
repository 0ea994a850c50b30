"""The searches there are: each module here but the helpers holds one as `SEARCH`; others bring entry points.

Their group is `epi.searches`.

docs/extending.md shows a complete one. Not here: what a search must be (`base`).
"""

from collections.abc import Mapping
from typing import Any

from shared.checkpoints import surgery
from shared.kernel.progress import Progress
from shared.kernel.registry import Registry
from shared.kernel.settings import validate_settings
from surgeon.search.base import Found, Search, SearchInputs

SEARCHES: Registry[type[Search]] = Registry(
    "search",
    package="surgeon.search",
    attribute="SEARCH",
    group="epi.searches",
    fits=lambda found: isinstance(found, type) and issubclass(found, Search) and hasattr(found, "name"),
    name_of=lambda search: search.name,
    helpers=(
        "by_accuracy",
        "evolution",
        "masking",
        "merge_evolution",
        "multiple_choice",
        "offline_experts",
        "reconstruction",
        "released",
        "skipping",
        "task_fitness",
    ),
)


def search_named(name: str, parameters: Mapping[str, Any] | None = None) -> Search:
    """Return a search with its parameters.

    Raises:
        ConfigurationError: an unknown search, or a parameter that it has not or that does not fit, by name.
    """
    return validate_settings(SEARCHES.get(name), dict(parameters or {}), where=f"search {name}")


def perform(search: Search, inputs: SearchInputs, on_progress: Progress) -> Found:
    """Search, after everything that can be refused was.

    Raises:
        EpiError: what the checks and the search raise.
    """
    search.check_inputs(inputs.given, has_depth=inputs.depth is not None)
    search.check(surgery.describe(inputs.model), inputs.depth)
    return search.run(inputs, on_progress)
