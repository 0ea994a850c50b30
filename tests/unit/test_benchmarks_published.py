"""Every form in which the published benchmarks go around gives the same documents; what is damaged is named."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from orchestrator.benchmarks.data_dir import DataDir, default_data_dir, docs_sha256
from orchestrator.benchmarks.published import PUBLISHED
from shared.kernel.errors import DataError, NotFoundError

MMLU, ARC, HELLASWAG = PUBLISHED["mmlu"], PUBLISHED["arc_challenge"], PUBLISHED["hellaswag"]
MMLU_DOCS = [
    {"question": f'What is "{n}",\nin words?', "subject": subject, "choices": ["one", "two", "3", ""], "answer": n}
    for subject in ("abstract_algebra", "anatomy")
    for n in (0, 1, 2, 3)
]
ARC_DOCS = [
    {
        "id": f"Q_{n}",
        "question": f"Which is number {n}?",
        "choices": {"text": ["first", "second", "third", "fourth"], "label": ["A", "B", "C", "D"]},
        "answerKey": "ABCD"[n],
    }
    for n in range(4)
]
HELLASWAG_DOCS = [
    {
        "activity_label": "Ironing",
        "ctx_a": f"A man irons shirt {n}.",
        "ctx_b": "he",
        "endings": ["sings.", "flies.", "eats it.", "hangs it up."],
        "label": str(n),
        "source_id": f"activity~{n}",
    }
    for n in range(4)
]


def _jsonl(path: Path, docs: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(doc) + "\n" for doc in docs), encoding="utf-8")


def _csv(path: Path, rows: list[list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def _parquet(path: Path, docs: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(docs), path)


def _of(subject: str) -> list[dict[str, Any]]:
    return [doc for doc in MMLU_DOCS if doc["subject"] == subject]


def _mmlu_authors(root: Path) -> None:
    for subject in ("abstract_algebra", "anatomy"):
        rows = [[d["question"], *d["choices"], "ABCD"[d["answer"]]] for d in _of(subject)]
        _csv(root / "data" / "test" / f"{subject}_test.csv", rows)


def _mmlu_columns(root: Path) -> None:
    for subject in ("abstract_algebra", "anatomy"):
        rows = [[d["question"], *d["choices"], d["answer"]] for d in _of(subject)]
        header = ["question", "choice0", "choice1", "choice2", "choice3", "answer"]
        _csv(root / "test" / f"{subject}_test.csv", [header, *rows])


def _mmlu_letters(root: Path) -> None:
    rows = [[d["subject"], d["question"], *d["choices"], "ABCD"[d["answer"]]] for d in MMLU_DOCS]  # type: ignore[index, misc]
    _csv(root / "mmlu_test.csv", [["subject", "question", "A", "B", "C", "D", "answer"], *rows])


def _mmlu_hub(root: Path) -> None:
    _parquet(root / "all" / "test-00000-of-00001.parquet", MMLU_DOCS)


def _mmlu_hub_by_subject(root: Path) -> None:
    for subject in ("abstract_algebra", "anatomy"):
        docs = [{key: doc[key] for key in ("question", "choices", "answer")} for doc in _of(subject)]
        _parquet(root / subject / "test-00000-of-00001.parquet", docs)


def _mmlu_jsonl(root: Path) -> None:
    for subject in ("abstract_algebra", "anatomy"):
        _jsonl(root / "test" / f"{subject}.jsonl", _of(subject))


def _arc_authors(root: Path) -> None:
    docs = [
        {
            "id": d["id"],
            "question": {
                "stem": d["question"],
                "choices": [
                    {"text": text, "label": label}
                    for text, label in zip(d["choices"]["text"], d["choices"]["label"], strict=True)  # type: ignore[index]
                ],
            },
            "answerKey": d["answerKey"],
        }
        for d in ARC_DOCS
    ]
    _jsonl(root / "ARC-Challenge-Test.jsonl", docs)
    _jsonl(root / "ARC-Easy-Test.jsonl", docs)  # lies beside it in the authors' archive; must not be mixed in


def _arc_authors_csv(root: Path) -> None:
    rows = [
        [d["id"], d["answerKey"], d["question"] + "".join(f" ({k}) {t}" for k, t in zip("ABCD", texts, strict=True))]  # type: ignore[operator]
        for d in ARC_DOCS
        for texts in [d["choices"]["text"]]  # type: ignore[index]
    ]
    _csv(root / "ARC-Challenge-Test.csv", [["questionID", "AnswerKey", "question"], *rows])


def _arc_hub(root: Path) -> None:
    _parquet(root / "ARC-Challenge" / "test-00000-of-00001.parquet", ARC_DOCS)


def _arc_packed_csv(root: Path) -> None:
    rows = [[d["id"], d["question"], json.dumps(d["choices"]), d["answerKey"]] for d in ARC_DOCS]
    _csv(root / "ARC-Challenge_test.csv", [["id", "question", "choices", "answerKey"], *rows])


def _hellaswag_authors(root: Path) -> None:
    docs = [{**d, "label": int(d["label"]), "ind": n, "split": "val"} for n, d in enumerate(HELLASWAG_DOCS)]  # type: ignore[call-overload]
    _jsonl(root / "hellaswag_val.jsonl", docs)
    _jsonl(root / "hellaswag_test.jsonl", [{**d, "label": ""} for d in HELLASWAG_DOCS])  # no labels: must be left alone


def _hellaswag_hub(root: Path) -> None:
    _parquet(root / "data" / "validation-00000-of-00001.parquet", HELLASWAG_DOCS)


def _hellaswag_columns(root: Path) -> None:
    keys = ["activity_label", "ctx_a", "ctx_b", "label", "source_id"]
    rows = [[*(d[key] for key in keys), *d["endings"]] for d in HELLASWAG_DOCS]
    _csv(root / "validation.csv", [[*keys, "ending0", "ending1", "ending2", "ending3"], *rows])


@pytest.mark.parametrize(
    "write",
    [_mmlu_authors, _mmlu_columns, _mmlu_letters, _mmlu_hub, _mmlu_hub_by_subject, _mmlu_jsonl],
    ids=lambda write: write.__name__,
)
def test_mmlu_forms(tmp_path: Path, write: Any) -> None:
    write(tmp_path / "mmlu")
    data = DataDir(tmp_path)
    assert docs_sha256(data.splits(MMLU)["test"]) == docs_sha256(MMLU_DOCS)
    assert data.splits(MMLU, "anatomy")["test"] == _of("anatomy")


@pytest.mark.parametrize(
    "write", [_arc_authors, _arc_authors_csv, _arc_hub, _arc_packed_csv], ids=lambda write: write.__name__
)
def test_arc_forms(tmp_path: Path, write: Any) -> None:
    write(tmp_path / "arc_challenge")
    assert DataDir(tmp_path).splits(ARC) == {"test": ARC_DOCS}


@pytest.mark.parametrize(
    "write", [_hellaswag_authors, _hellaswag_hub, _hellaswag_columns], ids=lambda write: write.__name__
)
def test_hellaswag_forms(tmp_path: Path, write: Any) -> None:
    write(tmp_path / "hellaswag")
    assert DataDir(tmp_path).splits(HELLASWAG) == {"validation": HELLASWAG_DOCS}


@pytest.mark.parametrize(
    ("doc", "reason"),
    [
        ({"question": "q", "choices": ["a", "b", "c"], "answer": 0}, "3 choices"),
        ({"question": "q", "choices": ["a", "b", "c", "d"], "answer": 4}, "none of the 4"),
        ({"question": "q", "answer": 0}, "no field 'choices'"),
        ({"choices": ["a", "b", "c", "d"], "answer": 0}, "no field 'question'"),
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, doc: dict[str, Any], reason: str) -> None:
    good = MMLU_DOCS[0]
    _jsonl(tmp_path / "mmlu" / "anatomy_test.jsonl", [good, doc])
    with pytest.raises(DataError, match=rf"anatomy_test\.jsonl: record 2 .*{reason}"):
        DataDir(tmp_path).splits(MMLU)


def test_a_damaged_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mmlu" / "test-00000-of-00001.parquet"
    path.parent.mkdir()
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match="not a readable parquet"):
        DataDir(tmp_path).splits(MMLU)


def test_what_is_missing_is_named_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="epi data fetch hellaswag"):
        DataDir(tmp_path).splits(HELLASWAG)
    _mmlu_hub(tmp_path / "mmlu")
    with pytest.raises(NotFoundError, match="astronomy"):
        DataDir(tmp_path).splits(MMLU, "astronomy")


def test_environment_names_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPI_DATA_DIR", str(tmp_path))
    assert default_data_dir() == tmp_path
    monkeypatch.delenv("EPI_DATA_DIR")
    assert default_data_dir().parts[-2:] == ("epi-factory", "benchmarks")
