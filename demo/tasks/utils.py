"""Dataset loader of the demo tasks, named in the YAML files as `!function utils.load`.

lm-eval resolves `data_files` against the current directory; this loader finds the JSONL
files beside itself, so the tasks work from any directory.
"""

from __future__ import annotations

from pathlib import Path

import datasets

DATA = Path(__file__).parent / "data"


def load(style: str, **_: object) -> datasets.DatasetDict:
    """Return the splits `test` and `fewshot` of a style such as "arc_style".

    lm-eval also passes the task's metadata, which is not needed here.
    """
    splits = {"test": DATA / f"{style}.jsonl", "fewshot": DATA / f"{style}_fewshot.jsonl"}
    return datasets.DatasetDict({name: datasets.Dataset.from_json(str(path)) for name, path in splits.items()})
