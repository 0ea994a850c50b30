"""Brings the published benchmarks into the data directory: by download, or from files the user already has."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx

from orchestrator.benchmarks.data_dir import docs_sha256, read_folder
from orchestrator.benchmarks.published import Published
from shared.files.atomic import move_into_place, write_file
from shared.kernel.errors import DataError, InfrastructureError
from shared.kernel.records import Record

OnBytes = Callable[[str, int, int | None], None]
"""Called with (file name, bytes so far, total or None)."""

_CHUNK_BYTES = 1 << 16


class SplitStatus(Record):
    """One split as found; `expected` is the published number of questions, null where the split is not needed."""

    split: str
    questions: int
    expected: int | None
    sha256: str

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
    splits = tuple(
        SplitStatus(
            split=split, questions=len(found), expected=benchmark.expected.get(split), sha256=docs_sha256(found)
        )
        for split, found in sorted(docs.items())
    )
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
    folder.mkdir(parents=True, exist_ok=True)
    return [
        target
        for split, url in benchmark.urls.items()
        if not (target := folder / f"{split}{Path(url).suffix}").exists()
        and _fetch(url, target, benchmark, split, on_bytes)
    ]


def _fetch(url: str, target: Path, benchmark: Published, split: str, on_bytes: OnBytes | None) -> bool:
    partial = target.with_name(target.name + ".part")
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=60) as response:
            if response.status_code not in (200, 206, 416):
                raise InfrastructureError(f"the source answered HTTP {response.status_code}", where=url, hint=_HINT)
            if response.status_code != 416:  # 416: the partial file was whole already
                have = have if response.status_code == 206 else 0
                length = response.headers.get("content-length")
                total = have + int(length) if length is not None else None
                with partial.open("ab" if have else "wb") as file:
                    for chunk in response.iter_bytes(_CHUNK_BYTES):
                        file.write(chunk)
                        have += len(chunk)
                        if on_bytes is not None:
                            on_bytes(target.name, have, total)
    except httpx.HTTPError as error:
        raise InfrastructureError(f"cannot download: {error}", where=url, hint=_HINT) from error
    move_into_place(partial, target)
    try:
        found = len(read_folder(target.parent, benchmark, only=target).get(split, []))
        if found < benchmark.expected.get(split, 1):
            raise DataError(f"{found} questions where {benchmark.expected[split]} belong", where=url)
    except DataError:
        target.unlink()
        raise
    return True


_HINT = "without internet: `epi data fetch NAME --from FOLDER` takes files you have, in any published form"
