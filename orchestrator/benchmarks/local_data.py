"""Reads the questions of a task from local files named in its YAML (`dataset_path: json|csv`, `data_files`).

Relative paths are relative to the YAML file. Files are read here and not by the `datasets` loader scripts: nothing is
copied into a cache, and a damaged line is named.
"""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.benchmarks.offline import go_offline

go_offline()
import datasets  # noqa: E402

from shared.kernel.errors import ConfigurationError, DataError, NotFoundError  # noqa: E402
from shared.kernel.regular_files import RECORDS_BYTES, read_text  # noqa: E402

Doc = dict[str, Any]
Splits = dict[str, "datasets.Dataset"]


def load_data_files(data_files: Mapping[str, str | list[str]], base: Path) -> Splits:
    """Read split -> file(s), JSON Lines or CSV with a header row, into in-memory datasets.

    Raises:
        NotFoundError: a file does not exist.
        DataError: a file is empty, damaged, or of an unknown kind; file and line are named.
    """
    return {
        split: to_dataset([doc for name in _as_list(names) for doc in read_docs(base / name)])
        for split, names in data_files.items()
    }


def to_dataset(docs: list[Doc]) -> Any:
    """Return documents as an in-memory `datasets.Dataset`, the form lm-eval wants."""
    return datasets.Dataset.from_list(docs)


def read_docs(path: Path) -> list[Doc]:
    """Read one JSON Lines or CSV file as a list of documents.

    Raises:
        NotFoundError: the file does not exist.
        DataError: empty, damaged, or neither .jsonl/.json nor .csv.
    """
    if path.suffix not in {".jsonl", ".json", ".csv"}:
        raise DataError("questions must be .jsonl or .csv files", where=str(path))
    try:
        text = read_text(path, RECORDS_BYTES, encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise NotFoundError("the task's question file does not exist", where=str(path)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the questions: {error}", where=str(path)) from error
    docs = _csv_rows(text, path) if path.suffix == ".csv" else _json_lines(text, path)
    if not docs:
        raise DataError("the file holds no questions", where=str(path))
    return docs


def _csv_rows(text: str, path: Path) -> list[Doc]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    try:
        return list(rows)
    except csv.Error as error:
        raise DataError(f"not valid CSV: {error}", where=f"{path}:{rows.line_num}") from error


def _json_lines(text: str, path: Path) -> list[Doc]:
    docs: list[Doc] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            doc = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"not valid JSON: {error}", where=f"{path}:{number}") from error
        if not isinstance(doc, dict):
            raise DataError("a question must be a JSON object", where=f"{path}:{number}")
        docs.append(doc)
    return docs


def _as_list(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) else names


def check_data_files(value: object, where: str) -> Mapping[str, str | list[str]]:
    """Return `dataset_kwargs.data_files` of a task as split -> file(s).

    Raises:
        ConfigurationError: it is not a mapping.
    """
    if not isinstance(value, Mapping):
        raise ConfigurationError("dataset_kwargs.data_files must map a split to a file", where=where)
    return value
