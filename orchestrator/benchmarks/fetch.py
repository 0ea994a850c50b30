"""Brings the published benchmarks into the data directory: by download, or from files the user already has."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from orchestrator.benchmarks.data_dir import docs_sha256, read_folder
from orchestrator.benchmarks.published import Doc, Published
from shared.files.atomic import write_file
from shared.files.download import Wanted
from shared.files.download import download as download_file
from shared.kernel.errors import DataError, InfrastructureError
from shared.kernel.records import Record
from shared.service.endpoint import Endpoint

OnBytes = Callable[[str, int, int | None], None]
"""Called with (file name, bytes so far, total or None)."""

_LARGEST_BYTES = 1 << 30
"""The largest published split has 50 MB."""


class SplitStatus(Record):
    """One split as found; `expected` is the published number of questions, null where the split is not needed.

    `known` says whether these are the questions whose hash this version knows; null: it knows none.
    """

    split: str
    questions: int
    expected: int | None
    sha256: str
    known: bool | None = None

    @property
    def complete(self) -> bool:
        """True unless questions are missing."""
        return self.expected is None or self.questions >= self.expected


class BenchmarkStatus(Record):
    """One benchmark as found in the data directory."""

    name: str
    folder: str
    licence: str
    usable: bool
    problem: str = ""
    subjects: int | None = None
    splits: tuple[SplitStatus, ...] = ()


def check(benchmark: Published, data_dir: Path) -> BenchmarkStatus:
    """Read all files of a benchmark and say what is there; damage is reported, not raised."""
    folder = data_dir / benchmark.folder
    base = {"name": benchmark.name, "folder": str(folder), "licence": benchmark.licence}
    try:
        docs = read_folder(folder, benchmark)
    except DataError as error:
        return BenchmarkStatus(**base, usable=False, problem=str(error))
    splits = tuple(_status(benchmark, split, found) for split, found in sorted(docs.items()))
    missing = [split for split in benchmark.expected if split not in docs]
    short = [f"{s.split} has {s.questions} of {s.expected}" for s in splits if not s.complete]
    subjects = {doc.get("subject") for found in docs.values() for doc in found}
    asked = "test" if "test" in benchmark.expected else "validation"
    return BenchmarkStatus(
        **base,
        usable=asked in docs,
        problem="; ".join([*(f"no split {split}" for split in missing), *short]) if docs else "not on this machine",
        subjects=len(subjects) if benchmark.name == "mmlu" else None,
        splits=splits,
    )


def _status(benchmark: Published, split: str, docs: list[Doc]) -> SplitStatus:
    sha256, known = docs_sha256(docs), benchmark.known.get(split)
    return SplitStatus(
        split=split, questions=len(docs), expected=benchmark.expected.get(split), sha256=sha256,
        known=None if known is None else sha256 == known,
    )  # fmt: skip


def import_folder(benchmark: Published, source: Path, data_dir: Path) -> list[Path]:
    """Read a benchmark's files in any known form and write them as JSON Lines, one file a split.

    Raises:
        DataError: a file is damaged, or the folder holds none of the benchmark.
    """
    docs = read_folder(source, benchmark)
    if not docs:
        raise DataError(f"no file of {benchmark.name} is recognised here", where=str(source))
    folder = data_dir / benchmark.folder
    written = []
    for split, found in docs.items():
        written.append(folder / f"{split}.jsonl")
        write_file(written[-1], "".join(json.dumps(doc, ensure_ascii=False) + "\n" for doc in found))
    return written


def download(benchmark: Published, data_dir: Path, on_bytes: OnBytes | None = None) -> list[Path]:
    """Download the splits that are not here yet; a broken download goes on where it stopped.

    Raises:
        InfrastructureError: the source cannot be reached or refuses.
        DataError: what arrived is not the benchmark; it is removed.
    """
    folder = data_dir / benchmark.folder
    missing = {
        target: (split, url)
        for split, url in benchmark.urls.items()
        if not (target := folder / f"{split}{Path(url).suffix}").exists()
    }
    for target, (split, url) in missing.items():
        asyncio.run(_fetch(url, target, on_bytes))
        try:
            found = len(read_folder(target.parent, benchmark, only=target).get(split, []))
            if found < benchmark.expected.get(split, 1):
                raise DataError(f"{found} questions where {benchmark.expected[split]} belong", where=url)
        except DataError:
            target.unlink()
            raise
    return list(missing)


async def _fetch(url: str, target: Path, on_bytes: OnBytes | None) -> None:
    def told(_received: int, here: int, total: int | None) -> None:
        if on_bytes is not None:
            on_bytes(target.name, here, total)

    def check_room(needed_bytes: int) -> None:
        if (free := shutil.disk_usage(target.parent).free) < needed_bytes:
            raise InfrastructureError(f"{needed_bytes} bytes do not fit, {free} are free", where=str(target.parent))

    partial, wanted = target.with_name(target.name + ".part"), Wanted(url, _LARGEST_BYTES)
    async with Endpoint("").client(timeout_s=60, follow_redirects=True) as client:
        try:
            await download_file(client, wanted, partial, target, make_room=check_room, on_bytes=told)
        except InfrastructureError as error:
            raise InfrastructureError(error.message, where=error.where, hint=_HINT) from error


_HINT = "without internet: `epi data fetch NAME --from FOLDER` takes files you have, in any published form"
