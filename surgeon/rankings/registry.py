"""The rankings there are: each module here holds one as `RANKING`; others bring theirs as entry points `epi.rankings`.

docs/extending.md shows a complete one. Not here: what a ranking must be (`base`).
"""

from collections.abc import Mapping
from typing import Any

from shared.kernel.registry import Registry
from shared.kernel.settings import validate_settings
from surgeon.rankings.base import Ranking

RANKINGS: Registry[type[Ranking]] = Registry(
    "method",
    package="surgeon.rankings",
    attribute="RANKING",
    group="epi.rankings",
    fits=lambda found: isinstance(found, type) and issubclass(found, Ranking) and hasattr(found, "name"),
    name_of=lambda ranking: ranking.name,
)


def ranking_named(name: str, parameters: Mapping[str, Any] | None = None, *, seed: int = 0) -> Ranking:
    """Return a method with its parameters; `seed` is for those that draw lots and are given no other.

    Raises:
        ConfigurationError: an unknown method, or a parameter that it has not or that does not fit, by name.
    """
    ranking = RANKINGS.get(name)
    given = dict(parameters or {})
    if "seed" in ranking.model_fields:
        given.setdefault("seed", seed)
    return validate_settings(ranking, given, where=f"method {name}")
