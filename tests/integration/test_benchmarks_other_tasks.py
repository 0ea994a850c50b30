"""Any other lm-eval task by name, from files copied from the Hub: three shapes of task, against stock lm-eval."""

import json
from pathlib import Path
from typing import Any

import datasets
import lm_eval.evaluator
import lm_eval.tasks
import pytest
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask

from orchestrator.benchmarks.records import SuiteSpec, TaskSpec
from orchestrator.benchmarks.suite import BenchmarkSuite
from orchestrator.benchmarks.task_files import TaskFiles
from shared.kernel.errors import ConfigurationError, NotFoundError
from tests.support.benchmarks_oracle import OracleEngine, oracle

DOCS: dict[str, list[dict[str, Any]]] = {
    "piqa": [{"goal": f"To open jar {n}", "sol1": "twist it", "sol2": f"ask {n}", "label": n % 2} for n in range(8)],
    # Options are contexts here: one question is two items of a score job.
    "winogrande": [
        {"sentence": f"Ann thanked Eve {n} because _ helped.", "option1": "Ann", "option2": "Eve", "answer": answer}
        for n, answer in enumerate("12211212")
    ],
    # One continuation, judged by whether it is the greedy one.
    "lambada_openai": [{"text": f"They sailed {n} days across the sea"} for n in range(8)],
}


class _PlainLM(LM):  # type: ignore[misc]
    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        return [oracle(context.rstrip(), context[len(context.rstrip()) :] + text) for context, text in _args(requests)]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        raise AssertionError

    def generate_until(self, requests: list[Any]) -> list[str]:
        raise AssertionError


def _args(requests: list[Any]) -> list[tuple[str, str]]:
    return [request.args for request in requests]


class _StockTask(ConfigurableTask):  # type: ignore[misc]
    """lm-eval's own task, only its download replaced."""

    def download(self, dataset_kwargs: Any = None, **_: Any) -> None:
        docs = datasets.Dataset.from_list(DOCS[self.config.task])
        self.dataset = {"train": docs, "validation": docs, "test": docs}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    for name, docs in DOCS.items():
        split = "test" if name == "lambada_openai" else "validation"
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{split}.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    return tmp_path


@pytest.mark.parametrize("name", DOCS)
def test_equal_to_stock_lm_eval(data_dir: Path, name: str) -> None:
    spec = SuiteSpec(tasks=(TaskSpec(name=name, shots=0, metric="acc"),), data_dir=data_dir)
    result = BenchmarkSuite(spec).run(OracleEngine())
    stock = _StockTask(config=TaskFiles().find(name)[0].config)
    outcome = lm_eval.evaluator.evaluate(
        lm=_PlainLM(), task_dict={"tasks": {name: stock}, "groups": {}}, bootstrap_iters=0
    )
    assert outcome is not None
    theirs = outcome["samples"][name]
    assert [question.correct for question in result.questions] == [bool(sample["acc"]) for sample in theirs]
    assert [list(question.log_likelihoods) for question in result.questions] == [
        [value for value, _ in sample["filtered_resps"]] for sample in theirs
    ]
    assert result.accuracy[name] == pytest.approx(outcome["results"][name]["acc,none"])


def test_what_cannot_be_asked_is_refused_by_name(data_dir: Path) -> None:
    def load(name: str) -> None:
        BenchmarkSuite(SuiteSpec(tasks=(TaskSpec(name=name),), data_dir=data_dir))

    with pytest.raises(NotFoundError, match=r"boolq: .*not on this machine .*super_glue"):
        load("boolq")
    (data_dir / "wikitext_document_level").mkdir()
    (data_dir / "wikitext_document_level" / "test.jsonl").write_text('{"page": "Once upon a time."}\n')
    with pytest.raises(ConfigurationError, match="loglikelihood_rolling"):
        load("wikitext")
