"""What can be asked for by name: rankings, searches and kinds of surgery with their parameters and sources.

Not here: the rankings themselves (`surgeon.rankings`), the searches (`surgeon.search`), the kinds (`surgeon.kinds`).
"""

from collections.abc import Collection
from typing import Any

from pydantic import BaseModel

from shared.wire.surgeon_catalogue import KindInfo, MethodInfo, Need, ParameterInfo
from surgeon.kinds.registry import KINDS
from surgeon.rankings.base import Ranking
from surgeon.rankings.registry import RANKINGS
from surgeon.search.base import Search
from surgeon.search.registry import SEARCHES


def method_infos() -> list[MethodInfo]:
    """Return every ranking and every search, each sort by name.

    Raises:
        ConfigurationError: one cannot be loaded.
    """
    return [*map(_of_ranking, RANKINGS.all()), *map(_of_search, SEARCHES.all())]


def loadable_method_infos() -> tuple[MethodInfo, ...]:
    """Return every ranking and every search but those that cannot be loaded: what is asked for by name says why."""
    return (*map(_of_ranking, RANKINGS.loadable()), *map(_of_search, SEARCHES.loadable()))


def kind_infos() -> list[KindInfo]:
    """Return every kind of surgery, by name."""
    return [
        KindInfo(
            name=kind.kind, description=(kind.__doc__ or "").partition("\n")[0], source=kind.source,
            formats=kind.formats, parameters=_parameters(kind, kind.model_fields),
        )
        for kind in KINDS.all()
    ]  # fmt: skip


def _of_ranking(ranking: type[Ranking]) -> MethodInfo:
    needs: list[Need] = ["statistics"] if ranking.statistics else []
    if ranking.weight_formats:
        needs.append("weights")
    return MethodInfo(
        name=ranking.name, kind="ranking", source=ranking.source, needs=tuple(needs), statistics=ranking.statistics,
        formats=ranking.weight_formats, parameters=_parameters(ranking, ranking.model_fields),
    )  # fmt: skip


def _of_search(search: type[Search]) -> MethodInfo:
    return MethodInfo(
        name=search.name, kind="search", source=search.source, needs=search.needs, optional=search.optional,
        formats=search.formats, parameters=_parameters(search, search.model_fields),
    )  # fmt: skip


def _parameters(record: type[BaseModel], names: Collection[str]) -> tuple[ParameterInfo, ...]:
    schemas = record.model_json_schema()["properties"]
    return tuple(
        ParameterInfo(
            name=name, type=_type(schemas[name]), default=schemas[name].get("default"),
            description=schemas[name].get("description", ""),
        )
        for name in names
    )  # fmt: skip


def _type(schema: dict[str, Any]) -> str:
    """Return a JSON type's name; of several, all but null."""
    kinds = [entry.get("type", "object") for entry in schema.get("anyOf", [schema])]
    return " or ".join(kind for kind in kinds if kind != "null")
