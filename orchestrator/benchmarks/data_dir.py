"""The data directory: finds the published benchmarks' files whatever their layout, and hands out their documents.

`EPI_DATA_DIR` names the directory; without it, the user's data directory. Expected inside: `mmlu/`, `arc_challenge/`,
`hellaswag/`, each with files in any form that `published` understands and any folders below.
"""

import csv
import hashlib
import json
import os
import re
from pathlib import Path

import platformdirs

from orchestrator.benchmarks.first_use import FirstUse
from orchestrator.benchmarks.local_data import Doc, read_docs
from orchestrator.benchmarks.published import Published
from orchestrator.domain.run.question_sets import Trust
from shared.kernel.errors import DataError, NotFoundError
from shared.kernel.regular_files import RECORDS_BYTES, open_regular, open_regular_text

ENVIRONMENT = "EPI_DATA_DIR"
SUFFIXES = {".csv", ".jsonl", ".json", ".parquet"}
_MOST_ROWS = 5_000_000
_MMLU_COLUMNS = ("question", "A", "B", "C", "D", "answer")


def default_data_dir() -> Path:
    """Return $EPI_DATA_DIR, or the data directory of this user."""
    named = os.environ.get(ENVIRONMENT)
    return Path(named) if named else Path(platformdirs.user_data_dir("epi-factory")) / "benchmarks"


class DataDir:
    """Documents of the published benchmarks below one directory; every file is read once."""

    def __init__(self, root: Path, first_use: FirstUse | None = None) -> None:
        self.root = root
        self._first_use = first_use
        self._read: dict[str, dict[str, list[Doc]]] = {}
        self._trust: dict[str, Trust] = {}

    def splits(self, benchmark: Published, subject: str | None = None) -> dict[str, list[Doc]]:
        """Return split -> documents in lm-eval's form, of one MMLU subject or of all.

        Raises:
            NotFoundError: no file of the benchmark, or none of this subject.
            DataError: a file is damaged; file and record are named. Or the questions are others than at first use.
        """
        if benchmark.name not in self._read:
            self._read[benchmark.name] = self._load(benchmark)
        everything = self._read[benchmark.name]
        if subject is None:
            return everything
        chosen = {
            split: own for split, docs in everything.items() if (own := [d for d in docs if d["subject"] == subject])
        }
        if not chosen:
            raise NotFoundError(f"no questions of the subject {subject!r}", where=str(self.root / benchmark.folder))
        return chosen

    def _load(self, benchmark: Published) -> dict[str, list[Doc]]:
        folder = self.root / benchmark.folder
        splits = read_folder(folder, benchmark)
        if not splits:
            raise NotFoundError(
                f"no questions of {benchmark.name} on this machine",
                where=str(folder),
                hint=f"run `epi data fetch {benchmark.name}`, or copy its files there",
            )
        hashes = {split: docs_sha256(docs) for split, docs in splits.items() if split in benchmark.expected}
        if set(hashes) and hashes.items() <= benchmark.known.items():
            self._trust[benchmark.name] = "known"
        elif self._first_use is not None:
            self._first_use.check(benchmark.name, hashes, folder)
            self._trust[benchmark.name] = "first_use"
        return splits

    def trust(self, benchmark: Published) -> Trust:
        """Return what is known of the questions of a benchmark that was read."""
        return self._trust.get(benchmark.name, "own")


def read_folder(folder: Path, benchmark: Published, *, only: Path | None = None) -> dict[str, list[Doc]]:
    """Return split -> documents of all files of a benchmark below a folder (or of one of them); maybe nothing.

    Raises:
        DataError: a file is damaged; file and record are named.
    """
    splits: dict[str, list[Doc]] = {}
    for path in [only] if only is not None else sorted(folder.rglob("*")):
        split = split_of(path, folder, benchmark) if path.suffix in SUFFIXES else None
        if split is not None:
            subject = _subject_of(path, folder, benchmark)
            splits.setdefault(split, []).extend(_normalised(path, benchmark, subject))
    return splits


def split_of(path: Path, folder: Path, benchmark: Published) -> str | None:
    """Return the split that a file's name, or else a folder above it, stands for; None if it is no file of ours."""
    if benchmark.name == "arc_challenge" and "easy" in path.name.lower():
        return None
    words = re.split(r"[-_.]", path.stem.lower())
    if "auxiliary" in words:
        return None
    for word in (words[-1], words[0]):
        if word in benchmark.splits:
            return benchmark.splits[word]
    for parent in path.relative_to(folder).parts[-2::-1]:
        if parent.lower() in benchmark.splits:
            return benchmark.splits[parent.lower()]
    return None


def docs_sha256(docs: list[Doc]) -> str:
    """Return the hash of documents in lm-eval's form: equal for equal questions, in whatever files and order."""
    lines = sorted(json.dumps(doc, sort_keys=True, ensure_ascii=False, default=str).encode() for doc in docs)
    return hashlib.sha256(b"".join(line + b"\n" for line in lines)).hexdigest()


def _subject_of(path: Path, folder: Path, benchmark: Published) -> str:
    words = re.split(r"[-_.]", path.stem.lower())
    if words[-1] in benchmark.splits:
        return "_".join(words[:-1])
    if words[0] in benchmark.splits:  # test-00000-of-00001: the folder is the subject
        parent = path.parent.name
        return parent if path.parent != folder and parent not in {"all", "data", *benchmark.splits} else ""
    return path.stem


def _normalised(path: Path, benchmark: Published, subject: str) -> list[Doc]:
    docs: list[Doc] = []
    for number, raw in enumerate(_records(path), start=1):
        if benchmark.name == "mmlu" and not raw.get("subject"):
            raw = {**raw, "subject": subject}
        try:
            docs.append(benchmark.normalise(raw))
        except (KeyError, ValueError, TypeError) as error:
            reason = f"no field {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(
                f"record {number} is not a question of {benchmark.name}: {reason}", where=str(path)
            ) from error
    return docs


def _records(path: Path) -> list[Doc]:
    if path.suffix == ".parquet":
        return _parquet_rows(path)
    if path.suffix == ".csv":
        try:
            with open_regular_text(path, RECORDS_BYTES, encoding="utf-8-sig", newline="") as file:
                first = next(csv.reader(file), [])
                if len(first) == len(_MMLU_COLUMNS) and first[-1] in set("ABCD"):  # the authors' MMLU has no header
                    file.seek(0)
                    return [dict(zip(_MMLU_COLUMNS, row, strict=False)) for row in csv.reader(file)]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"cannot read the questions: {error}", where=str(path)) from error
    return read_docs(path)


def _parquet_rows(path: Path) -> list[Doc]:
    import pyarrow
    import pyarrow.parquet

    try:
        with open_regular(path) as stream, pyarrow.parquet.ParquetFile(stream) as file:
            # What the file says of itself, before anything is unpacked: a few bytes can stand for any number of rows.
            groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
            if file.metadata.num_rows > _MOST_ROWS or sum(one.total_byte_size for one in groups) > RECORDS_BYTES:
                raise DataError(f"{file.metadata.num_rows} questions, more than any benchmark has", where=str(path))
            rows: list[Doc] = file.read().to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"not a readable parquet file: {error}", where=str(path)) from error
    return rows
