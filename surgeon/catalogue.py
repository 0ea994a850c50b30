"""What this surgeon has and can do, for those who plan campaigns. Nothing here reads more than headers."""

import asyncio
from pathlib import Path

from shared.checkpoints import gguf, surgery
from shared.kernel.errors import ConfigurationError, EpiError
from shared.wire.surgeon_catalogue import Catalogue, CatalogueModel
from surgeon.conversion.bases import UNQUANTISED, as_gguf, describe_base
from surgeon.rankings.registry import RANKINGS
from surgeon.search.registry import SEARCHES
from surgeon.settings import SurgeonSettings
from surgeon.work.named import loadable_method_infos


class CatalogueReader:
    """Describes the configured models once, and again when a file has changed."""

    def __init__(self, settings: SurgeonSettings) -> None:
        self._settings = settings
        self._known: dict[str, tuple[int, CatalogueModel]] = {}

    async def read(self) -> Catalogue:
        """Return everything that a campaign may name; a model that cannot be read says why."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> Catalogue:
        return Catalogue(
            models=tuple(self._model(name, path) for name, path in self._settings.models.items()),
            corpora={name: tuple(path.stem for path in paths) for name, paths in self._settings.corpora.items()},
            questions=tuple(self._settings.questions),
            methods=RANKINGS.names(),
            searches=SEARCHES.names(),
            described=loadable_method_infos(),
        )

    def _model(self, name: str, path: Path) -> CatalogueModel:
        try:
            changed_ns = path.stat().st_mtime_ns
        except OSError as error:
            return CatalogueModel(name=name, problem=f"cannot be read: {error.strerror}")
        known = self._known.get(name)
        if known is None or known[0] != changed_ns:
            known = self._known[name] = (changed_ns, _describe(name, path))
        return known[1]


def _describe(name: str, path: Path) -> CatalogueModel:
    try:
        if path.is_file():
            info, kv_heads, refused = describe_base(path)
            found = gguf.quantization_of(gguf.load(path))
            quantization = None if found in UNQUANTISED else found
        else:
            kv_heads, refused, quantization = None, "", None
            info = as_gguf(surgery.describe(path))
    except ConfigurationError as error:
        return CatalogueModel(name=name, no_surgery=error.message)
    except EpiError as error:
        return CatalogueModel(name=name, problem=str(error))
    return CatalogueModel(
        name=name, architecture=info.architecture, n_layers=info.n_layers, n_experts=info.n_experts,
        experts_per_token=info.experts_per_token, n_kv_heads=kv_heads, quantization=quantization,
        layouts=() if refused else info.layouts, no_biased=info.no_biased, layouts_agree=info.layouts_agree,
        no_surgery=refused,
    )  # fmt: skip
