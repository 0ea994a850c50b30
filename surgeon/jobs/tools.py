"""What all handlers need: settings, the artifact store, results remembered by input hash, progress by parts."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from shared.files.artifacts import ArtifactInfo, ArtifactStore, scratch_file
from shared.kernel.records import Record, SurgeryPlan, canonical_json
from shared.wire.job_server import JobContext
from surgeon.settings import SurgeonSettings
from surgeon.work.cache import ResultCache

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Tools:
    """One store and one cache, shared by all handlers."""

    settings: SurgeonSettings
    store: ArtifactStore
    cache: ResultCache

    def known(self, cls: type[R], key: str, *artifacts: str) -> R | None:
        """Return a remembered result whose fields named in `artifacts` are hashes that are still here."""
        found = self.cache.get(cls, key)
        if found is None or not all(self.store.has(getattr(found, name)) for name in artifacts):
            return None
        return found

    async def adopt(self, path: Path) -> ArtifactInfo:
        """Take a finished file into the store."""
        return await asyncio.to_thread(self.store.adopt, path)

    @asynccontextmanager
    async def plan_file(self, plan: SurgeryPlan | None) -> AsyncIterator[Path | None]:
        """Yield the plan as a file for a child process."""
        if plan is None:
            yield None
            return
        async with scratch_file(self.store) as path:
            path.write_bytes(canonical_json(plan))
            yield path


def part(context: JobContext, begin: float, end: float, what: str) -> Callable[[float, str], None]:
    """Return a function that reports the progress of one part of a job."""
    return lambda fraction, message: context.progress(begin + (end - begin) * fraction, f"{what}: {message}")
