"""The published benchmarks and the forms in which their files go around, made one form: the one lm-eval's tasks read.

Pure: documents in, documents out. Which files exist and how they are read is in `local_data`.

| benchmark | forms understood |
|---|---|
| MMLU | the authors' CSV (no header, answer A..D), CSV or JSON Lines with named columns, Hub parquet |
| ARC-Challenge | the authors' JSON Lines and CSV, the Hub's form (choices.text, choices.label), plain columns |
| HellaSwag | the authors' JSON Lines, the Hub's form, CSV with ending0..ending3 |
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Doc = dict[str, Any]

LETTERS = "ABCDE"
_OPTION_KEYS = ("choice{n}", "choice_{n}", "option{n}", "option_{n}", "ending{n}", "ending_{n}")
_LETTER_KEYS = ("{a}", "{b}", "choice_{b}", "option_{b}", "choice_{a}", "option_{a}")


@dataclass(frozen=True)
class Published:
    """One published benchmark.

    Attributes:
        folder: Its folder in the data directory.
        hub: Its `dataset_path` in lm-eval's task files.
        splits: Word in a file's name -> split as lm-eval calls it.
        expected: Number of questions of each split that matters.
        urls: Where `epi data fetch` gets each split.
        licence: Of the questions.
        known: Split -> `docs_sha256` of the published questions, where somebody could compute it from whole files.
        normalise: Makes one record lm-eval's form; raises KeyError, ValueError or TypeError.
    """

    name: str
    folder: str
    hub: str
    splits: Mapping[str, str]
    expected: Mapping[str, int]
    urls: Mapping[str, str]
    licence: str
    normalise: Callable[[Doc], Doc]
    known: Mapping[str, str] = field(default_factory=dict)


def normalise_mmlu(doc: Doc) -> Doc:
    """Return {question, subject, choices[4], answer index}."""
    choices = _options(doc)
    if len(choices) != 4:
        raise ValueError(f"{len(choices)} choices where four belong")
    return {
        "question": str(doc["question"]),
        "subject": str(doc.get("subject", "")),
        "choices": choices,
        "answer": _index(doc["answer"] if "answer" in doc else doc["target"], len(choices)),
    }


def normalise_arc(doc: Doc) -> Doc:
    """Return {id, question, choices{text[], label[]}, answerKey}."""
    question, texts, labels = _arc_parts(doc)
    key = str(doc.get("answerKey", doc.get("AnswerKey", doc.get("answer", "")))).strip()
    if key not in labels:
        raise ValueError(f"the answer {key!r} is none of the labels {labels}")
    return {
        "id": str(doc.get("id", doc.get("questionID", ""))),
        "question": question,
        "choices": {"text": texts, "label": labels},
        "answerKey": key,
    }


def normalise_hellaswag(doc: Doc) -> Doc:
    """Return {activity_label, ctx_a, ctx_b, endings[4], label as text, source_id}."""
    endings = _options(doc, "endings")
    if len(endings) != 4:
        raise ValueError(f"{len(endings)} endings where four belong")
    return {
        "activity_label": str(doc["activity_label"]),
        "ctx_a": str(doc["ctx_a"]),
        "ctx_b": str(doc.get("ctx_b") or ""),
        "endings": endings,
        "label": str(_index(doc["label"], len(endings))),
        "source_id": str(doc.get("source_id", "")),
    }


def _arc_parts(doc: Doc) -> tuple[str, list[str], list[str]]:
    question = doc["question"]
    if isinstance(question, Mapping):  # the authors' JSON Lines
        choices = question["choices"]
        return str(question["stem"]), [str(c["text"]) for c in choices], [str(c["label"]) for c in choices]
    packed = doc.get("choices")
    if isinstance(packed, str):
        packed = json.loads(packed)
    if isinstance(packed, Mapping):  # the Hub's form
        return str(question), [str(t) for t in packed["text"]], [str(label) for label in packed["label"]]
    marked = list(re.finditer(r"\(([A-E1-5])\)\s", str(question)))
    if packed is None and marked:  # the authors' CSV: options are inside the question
        text = str(question)
        ends = [*(match.start() for match in marked[1:]), len(text)]
        texts = [text[match.end() : end].strip() for match, end in zip(marked, ends, strict=True)]
        return text[: marked[0].start()].strip(), texts, [match.group(1) for match in marked]
    texts = _options(doc)
    return str(question), texts, list(LETTERS[: len(texts)])


def _options(doc: Doc, packed_key: str = "choices") -> list[str]:
    """Return the options, whether in one list or in columns of their own."""
    packed = doc.get(packed_key)
    if isinstance(packed, str):
        packed = json.loads(packed)
    if isinstance(packed, list | tuple):
        return [str(option) for option in packed]
    for pattern in _OPTION_KEYS:
        for start in (0, 1):
            found = _numbered(doc, pattern, start)
            if len(found) > 1:
                return found
    for pattern in _LETTER_KEYS:
        found = [str(doc[key]) for key in (pattern.format(a=x, b=x.lower()) for x in LETTERS) if _present(doc, key)]
        if len(found) > 1:
            return found
    raise KeyError(packed_key)


def _numbered(doc: Doc, pattern: str, start: int) -> list[str]:
    keys = [pattern.format(n=n) for n in range(start, start + 5)]
    return [str(doc[key]) for key in keys if _present(doc, key)] if _present(doc, keys[0]) else []


def _present(doc: Doc, key: str) -> bool:
    return doc.get(key) is not None


def _index(answer: object, n: int) -> int:
    """Return an answer given as an index or a letter as an index."""
    text = str(answer).strip()
    index = LETTERS.index(text.upper()) if len(text) == 1 and text.upper() in LETTERS else int(text)
    if not 0 <= index < n:
        raise ValueError(f"the answer {text!r} is none of the {n} options")
    return index


def as_published(name: str) -> Published:
    """Return the layout of any other dataset, whose documents are used as they are."""
    words = ("train", "validation", "val", "valid", "dev", "test")
    splits = {word: "validation" if word in ("val", "valid", "dev") else word for word in words}
    return Published(name, name, name, splits, expected={}, urls={}, licence="", normalise=dict)


_HUB = "https://huggingface.co/datasets"
_PART = "00000-of-00001.parquet"

PUBLISHED: dict[str, Published] = {
    "mmlu": Published(
        name="mmlu",
        folder="mmlu",
        hub="cais/mmlu",
        splits={"dev": "dev", "val": "validation", "validation": "validation", "test": "test"},
        expected={"dev": 285, "test": 14042},
        urls={split: f"{_HUB}/cais/mmlu/resolve/main/all/{split}-{_PART}" for split in ("dev", "test")},
        licence="MIT",
        normalise=normalise_mmlu,
        # Of all 57 subjects in the authors' files, as public copies have them.
        known={
            "dev": "8751e8e55c29865288ac7e65ac5793255af965df5cae16148e693011e015db0f",
            "test": "886bc8fc2ec1213a1dfca4c09895787822de41a0769100f516255f90fe147855",
        },
    ),
    "arc_challenge": Published(
        name="arc_challenge",
        folder="arc_challenge",
        hub="allenai/ai2_arc",
        splits={"train": "train", "dev": "validation", "val": "validation", "validation": "validation", "test": "test"},
        expected={"train": 1119, "test": 1172},
        urls={
            split: f"{_HUB}/allenai/ai2_arc/resolve/main/ARC-Challenge/{split}-{_PART}" for split in ("train", "test")
        },
        licence="CC BY-SA 4.0",
        normalise=normalise_arc,
    ),
    "hellaswag": Published(
        name="hellaswag",
        folder="hellaswag",
        hub="Rowan/hellaswag",
        # The authors keep the labels of the test split to themselves, so it is not read.
        splits={"train": "train", "val": "validation", "valid": "validation", "validation": "validation"},
        expected={"train": 39905, "validation": 10042},
        urls={split: f"{_HUB}/Rowan/hellaswag/resolve/main/data/{split}-{_PART}" for split in ("train", "validation")},
        licence="MIT",
        normalise=normalise_hellaswag,
    ),
}
"""The three benchmarks of the composite accuracy."""
