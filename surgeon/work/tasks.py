"""The surgeon's heavy work as typed tasks on paths: what the daemon runs in a child process and the CLI at once.

A task is a record of its inputs; `run` does it. Paths are allowed here because they never come from the network.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, TypeAdapter

from shared.kernel.progress import Progress
from shared.kernel.records import Record, SurgeryPlan
from shared.wire.surgeon_jobs import SkippingResult
from surgeon.quality.sanity import Evaluation
from surgeon.search.reports import EepReport, NaeeReport

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ConvertTask(Record):
    """Checkpoint directory -> GGUF."""

    task: Literal["convert"] = "convert"
    source: Path
    target: Path
    outtype: Literal["F32", "F16", "BF16"] = "F16"


class ConvertDllamaTask(Record):
    """Checkpoint directory -> distributed-llama .m, or .t."""

    task: Literal["convert_dllama"] = "convert_dllama"
    source: Path
    target: Path
    weights: str = "Q40"
    tokenizer: bool = False


class QuantizeTask(Record):
    """GGUF -> quantised GGUF."""

    task: Literal["quantize"] = "quantize"
    source: Path
    target: Path
    quantization: str
    threads: int = 1
    statistics: Path | None = None
    """Observed with columns: becomes the importance matrix."""
    plan: Path | None = None
    """The plan that `source` was cut with: the importance matrix is cut likewise."""


class ObserveTask(Record):
    """GGUF and text -> statistics file."""

    task: Literal["observe"] = "observe"
    model: Path
    texts: tuple[Path, ...]
    target: Path
    resume: Path | None = None
    window_tokens: int = Field(default=512, ge=8)
    threads: int = 1
    max_tokens: int | None = Field(default=None, ge=1)
    columns: bool = False
    reservoir: int = Field(default=0, ge=0)
    shard: tuple[int, int] = (0, 1)


class EvaluateTask(Record):
    """GGUF -> perplexity and answers to the sanity prompts."""

    task: Literal["evaluate"] = "evaluate"
    model: Path
    heldout: Path | None = None
    prompts: Path | None = None
    threads: int = 1
    max_tokens: int = Field(default=8192, ge=2)


class NaeeTask(Record):
    """GGUF and statistics with a reservoir -> plan."""

    task: Literal["naee"] = "naee"
    model: Path
    statistics: Path
    depth: int
    max_subsets: int


class _QuestionsTask(Record):
    """What searches by accuracy have in common."""

    model: Path
    questions: tuple[tuple[Path, str], ...]
    threads: int = 1


class _EepTask(_QuestionsTask):
    iterations: int
    offspring: int
    seed: int
    cache: Path | None = None
    train_share: float = Field(default=0.5, gt=0, lt=1)


class EepTask(_EepTask):
    """GGUF and questions -> plan."""

    task: Literal["eep"] = "eep"
    depth: int
    start: tuple[SurgeryPlan, ...] = ()


class EepMergeTask(_EepTask):
    """GGUF, questions and the plan of the prune phase -> plan with merge matrices."""

    task: Literal["eep_merge"] = "eep_merge"
    plan: SurgeryPlan


class SkippingTask(_QuestionsTask):
    """GGUF, statistics and questions -> what dynamic skipping would do."""

    task: Literal["skipping"] = "skipping"
    statistics: Path


SearchTask = NaeeTask | EepTask | EepMergeTask
Task = Annotated[
    SearchTask | SkippingTask | ConvertTask | ConvertDllamaTask | QuantizeTask | ObserveTask | EvaluateTask,
    Field(discriminator="task"),
]
TASK: TypeAdapter[Task] = TypeAdapter(Task)


class Done(Record):
    """What a task returns besides its files."""

    n_tokens: int = 0
    evaluation: Evaluation | None = None
    plan: SurgeryPlan | None = None
    naee: NaeeReport | None = None
    eep: EepReport | None = None
    skipping: SkippingResult | None = None


def run(task: Task, on_progress: Progress) -> Done:
    """Do the task; raises what the modules it calls raise."""
    if isinstance(task, ConvertTask):
        from surgeon.conversion.to_gguf import convert

        convert(task.source, task.target, outtype=task.outtype, on_progress=on_progress)
        return Done()
    if isinstance(task, ConvertDllamaTask):
        from surgeon.conversion.to_dllama import convert_model, convert_tokenizer

        if task.tokenizer:
            convert_tokenizer(task.source, task.target)
        else:
            convert_model(task.source, task.target, weights=task.weights, on_progress=on_progress)
        return Done()
    if isinstance(task, QuantizeTask):
        from surgeon.conversion.quantize import quantize

        imatrix = _imatrix(task.statistics, task.plan) if task.statistics is not None else None
        quantize(
            task.source, task.target, task.quantization, imatrix=imatrix, threads=task.threads, on_progress=on_progress
        )
        return Done()
    if isinstance(task, ObserveTask):
        return _observe(task, on_progress)
    if isinstance(task, SearchTask):
        return _search(task, on_progress)
    if isinstance(task, SkippingTask):
        from surgeon.observation import statistics
        from surgeon.search.skipping import evaluate_skipping

        found = statistics.load(task.statistics)
        return Done(skipping=evaluate_skipping(task.model, found, task.questions, threads=task.threads))
    from surgeon.quality.sanity import evaluate

    evaluation = evaluate(
        task.model, heldout=task.heldout, prompts=task.prompts, threads=task.threads, max_tokens=task.max_tokens,
        on_progress=on_progress,
    )  # fmt: skip
    return Done(n_tokens=evaluation.n_tokens, evaluation=evaluation)


def _search(task: SearchTask, on_progress: Progress) -> Done:
    from surgeon.search.eep import EepOptions
    from surgeon.search.eep_merge import MergeOptions
    from surgeon.search.run import run_eep, run_eep_merge, run_naee

    if isinstance(task, NaeeTask):
        plan, naee = run_naee(
            task.model, task.statistics, task.depth, max_subsets=task.max_subsets, on_progress=on_progress
        )
        return Done(plan=plan, naee=naee)
    if isinstance(task, EepTask):
        plan, eep = run_eep(
            task.model, task.questions, task.depth,
            EepOptions(iterations=task.iterations, offspring=task.offspring, seed=task.seed),
            start=[one.kept for one in task.start], cache=task.cache, train_share=task.train_share,
            threads=task.threads, on_progress=on_progress,
        )  # fmt: skip
    else:
        plan, eep = run_eep_merge(
            task.model, task.plan, task.questions,
            MergeOptions(iterations=task.iterations, offspring=task.offspring, seed=task.seed),
            cache=task.cache, train_share=task.train_share, threads=task.threads, on_progress=on_progress,
        )  # fmt: skip
    return Done(plan=plan, eep=eep)


def _imatrix(statistics: Path, plan: Path | None) -> "dict[str, NDArray[np.float32]]":
    from surgeon.conversion.imatrix import importance_matrix
    from surgeon.observation.statistics import load
    from surgeon.planning.plan_file import read_plan

    return importance_matrix(load(statistics), read_plan(plan) if plan is not None else None)


def _observe(task: ObserveTask, on_progress: Progress) -> Done:
    from surgeon.observation.corpus import load_corpus
    from surgeon.observation.observe import ObserveOptions, observe
    from surgeon.observation.statistics import save

    options = ObserveOptions(
        window_tokens=task.window_tokens, threads=task.threads, max_tokens=task.max_tokens, columns=task.columns,
        reservoir=task.reservoir, shard=task.shard,
    )  # fmt: skip
    started = time.monotonic()

    def report(done: int, total: int) -> None:
        rate = done / max(time.monotonic() - started, 1e-3)
        on_progress(done / max(total, 1), f"{done} of {total} tokens, {rate:.0f} token/s")

    statistics = observe(task.model, load_corpus(task.texts), options, resume=task.resume, on_progress=report)
    save(statistics, task.target)
    if task.resume is not None:
        task.resume.unlink(missing_ok=True)
    return Done(n_tokens=statistics.n_tokens)
