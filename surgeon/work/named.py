"""What can be asked for by name: rankings, searches and kinds of surgery with their parameters and sources.

Not here: the rankings themselves (`surgeon.rankings`), the searches (`surgeon.search`), the kinds (`surgeon.kinds`).
"""

from collections.abc import Collection
from typing import Any, Final, Literal

from pydantic import BaseModel

from shared.wire.surgeon_catalogue import KindInfo, MethodInfo, ParameterInfo
from shared.wire.surgeon_jobs import SearchParams
from surgeon.kinds.registry import KINDS
from surgeon.rankings.base import Ranking
from surgeon.rankings.registry import RANKINGS

Need = Literal["statistics", "weights", "reservoir", "questions", "plan"]
_EVOLUTION: Final = ("questions", "train_share", "iterations", "offspring", "seed")
_SEARCHES: Final[tuple[tuple[str, str, tuple[Need, ...], tuple[str, ...]], ...]] = (
    ("naee", "Lu et al., arXiv 2402.14800", ("reservoir", "weights"), ("depth", "max_subsets")),
    ("eep", "Liu et al., EEP, arXiv 2407.00945, prune phase", ("questions",), ("depth", "start", *_EVOLUTION)),
    ("eep_merge", "Liu et al., EEP, arXiv 2407.00945, merge phase", ("plan", "questions", "weights"), _EVOLUTION),
)
"""Name, source, needs, and which fields of `SearchParams` count."""
_READ_BY_SEARCHES: Final = ("gguf",)


def method_infos() -> list[MethodInfo]:
    """Return every ranking and every search, each sort by name."""
    return [*map(_of_ranking, RANKINGS.all()), *sorted(map(_of_search, _SEARCHES), key=lambda info: info.name)]


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


def _of_search(search: tuple[str, str, tuple[Need, ...], tuple[str, ...]]) -> MethodInfo:
    name, source, needs, parameters = search
    return MethodInfo(
        name=name, kind="search", source=source, needs=needs, formats=_READ_BY_SEARCHES,
        parameters=_parameters(SearchParams, parameters),
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
