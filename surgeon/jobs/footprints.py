"""What variants take in memory, for those who plan campaigns: calculated in a child process, remembered by input."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from shared.kernel.errors import EpiError
from shared.kernel.progress import no_progress
from shared.llama.library import LLAMA_BUILD
from shared.wire.footprint import FootprintAnswer, FootprintParams
from surgeon.jobs.tools import Tools
from surgeon.work.cache import key_of
from surgeon.work.child import run_in_child
from surgeon.work.tasks import FootprintTask


class FootprintReader:
    """Answers in the order of the questions; what was answered once is not calculated again."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._lock = asyncio.Lock()

    async def answers(self, items: Sequence[FootprintParams]) -> tuple[FootprintAnswer, ...]:
        """Return the answer to each item; a model that cannot be read is the problem of its items."""
        async with self._lock:
            keys = await asyncio.to_thread(self._keys, items)
            found = {key: self._tools.cache.get(FootprintAnswer, key) for key in keys}
            groups: dict[tuple[str, str], list[tuple[str, FootprintParams]]] = {}
            for key, item in dict(zip(keys, items, strict=True)).items():
                if found[key] is None:
                    groups.setdefault((item.model, item.quantization), []).append((key, item))
            for (model, quantization), missing in groups.items():
                found |= await self._calculated(model, quantization, missing)
        return tuple(found[key] or FootprintAnswer(problem="not calculated") for key in keys)

    async def _calculated(
        self, model: str, quantization: str, missing: Sequence[tuple[str, FootprintParams]]
    ) -> dict[str, FootprintAnswer]:
        try:
            task = FootprintTask(
                source=self._tools.settings.model_path(model), quantization=quantization,
                items=tuple((item.variant, item.serving) for _, item in missing),
            )  # fmt: skip
            answers = (await run_in_child(task, no_progress)).footprints
        except EpiError as error:  # tried again next time: a full disk or a killed child is not for ever
            return {key: FootprintAnswer(problem=error.message) for key, _ in missing}
        for (key, _), answer in zip(missing, answers, strict=True):
            self._tools.cache.put(key, answer)
        return {key: answer for (key, _), answer in zip(missing, answers, strict=True)}

    def _keys(self, items: Sequence[FootprintParams]) -> list[str]:
        states = {item.model: self._state(item.model) for item in items}
        return [
            key_of(kind="footprint", build=LLAMA_BUILD, files=states[item.model], item=item.model_dump(mode="json"))
            for item in items
        ]

    def _state(self, model: str) -> object:
        """Return what tells one state of a model's files from another without reading them."""
        try:
            path = self._tools.settings.model_path(model)
            files = sorted(path.iterdir()) if path.is_dir() else [path]
            return [_stamp(file) for file in files]
        except (OSError, EpiError) as error:
            return str(error)


def _stamp(file: Path) -> tuple[str, int, int]:
    status = file.stat()
    return str(file), status.st_size, status.st_mtime_ns
