"""An lm-eval `generate_until` task from a local YAML file, answered by the real engine through the `generate` job."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.benchmarks.cluster_lm import Generate
from orchestrator.benchmarks.records import SuiteSpec, TaskSpec
from orchestrator.benchmarks.resume import ResumableScore
from orchestrator.benchmarks.suite import BenchmarkSuite
from shared.kernel.errors import ConfigurationError, InfrastructureError
from shared.kernel.records import TokenLedger
from shared.wire.node_jobs.workloads import GenerateItem, GenerateParams, GenerateResult
from surgeon.conversion.to_gguf import convert
from tests.support.benchmarks_oracle import OracleEngine
from tests.support.benchmarks_reference import MODEL
from tests.support.engine_lab import EngineLab, ModelFiles, engine_lab, quiet

TASK = """\
task: continue
dataset_path: json
dataset_kwargs:
  data_files:
    test: continue_test.jsonl
    dev: continue_dev.jsonl
output_type: generate_until
test_split: test
fewshot_split: dev
num_fewshot: 2
fewshot_config:
  sampler: first_n
doc_to_text: "Say: {{question}}\\nAnswer:"
doc_to_target: "{{answer}}"
generation_kwargs:
  until: ["\\n", "%s"]
  max_gen_toks: 12
  do_sample: false
filter_list:
  - name: plain
    filter:
      - function: take_first
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""
N = 6
SHOTS = "Say: one\nAnswer: other\n\nSay: the\nAnswer: some\n\n"


def prompts() -> list[str]:
    return [f"{SHOTS}Say: {word} and\nAnswer:" for word in ("the", "one", "other", "some", "more", "time")]


@contextmanager
def engine(folder: Path) -> Iterator[tuple[asyncio.Runner, EngineLab]]:
    with asyncio.Runner() as runner:
        convert(MODEL, folder / "model.gguf")
        files = ModelFiles(folder / "model.gguf")
        context = engine_lab("llama.cpp", folder / "lab", files, 1)
        lab = runner.run(context.__aenter__())
        try:
            runner.run(lab.start())
            yield runner, lab
        finally:
            runner.run(context.__aexit__(None, None, None))


def test_free_text_is_written_judged_and_counted(tmp_path: Path) -> None:
    with engine(tmp_path) as (runner, lab):

        def generate(params: GenerateParams) -> GenerateResult:
            return runner.run(lab.engine.generate(params, quiet))

        free = generate(GenerateParams(items=tuple(GenerateItem(prompt=p, max_tokens=12) for p in prompts())))
        stop = free.texts[0].text.split()[1]
        cut = [text.text.split("\n")[0].split(stop)[0] for text in free.texts]
        write_files(tmp_path, stop, [text if at % 2 else "never said" for at, text in enumerate(cut)])
        suite = BenchmarkSuite(SuiteSpec(tasks=(TaskSpec(name="continue"),), include_paths=(tmp_path,)))
        result = suite.run(OracleEngine(), generate)
        assert suite.describe()[0].metric == "exact_match"
        assert [question.text for question in result.questions] == cut, "cut as lm-eval cuts"
        assert [question.correct for question in result.questions] == [bool(at % 2) for at in range(N)]
        assert [question.choice for question in result.questions] == [1 - at % 2 for at in range(N)]
        assert result.accuracy == {"continue": 0.5}
        assert result.ledger == sum((question.ledger for question in result.questions), TokenLedger())
        assert N <= result.ledger.generated < free.ledger.generated and result.ledger.scored == 0
        assert result.ledger.prompt + result.ledger.cached == free.ledger.prompt + free.ledger.cached
        assert result.ledger.cached > result.ledger.prompt, "the shots are evaluated once"
        resumes(suite, generate, tmp_path, result.questions[0].ledger)
        with pytest.raises(ConfigurationError, match=r"continue.*generate_until"):
            suite.run(OracleEngine())


def write_files(folder: Path, stop: str, answers: list[str]) -> None:
    (folder / "continue.yaml").write_text(TASK % stop)
    shots = [{"question": "one", "answer": "other"}, {"question": "the", "answer": "some"}]
    asked = [
        {"id": f"q{at}", "question": text.removeprefix(SHOTS)[5:].partition("\n")[0], "answer": answer}
        for at, (text, answer) in enumerate(zip(prompts(), answers, strict=True))
    ]
    for split, docs in (("dev", shots), ("test", asked)):
        (folder / f"continue_{split}.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))


def resumes(suite: BenchmarkSuite, generate: Generate, folder: Path, first: TokenLedger) -> None:
    """A pass that stops in its middle asks only what is missing."""
    asked: list[int] = []

    def dying(params: GenerateParams) -> GenerateResult:
        if asked:
            raise InfrastructureError("the engine is gone")
        asked.append(len(params.items))
        return generate(params)

    def keep(ask: Generate) -> ResumableScore:
        path = folder / "kept.jsonl"
        return ResumableScore(OracleEngine(), path, identity="model 1", questions_per_job=4, generate=ask)

    broken = keep(dying)
    with pytest.raises(InfrastructureError):
        suite.run(broken, broken.generate)
    assert asked == [4]
    again = keep(generate)
    result = suite.run(again, again.generate)
    assert again.reused == 4 and len(again.spans) == 1
    assert result.accuracy == {"continue": 0.5}
    assert result.questions[0].ledger.generated == first.generated
