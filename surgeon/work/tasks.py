"""The surgeon's heavy work as typed tasks on paths: what the daemon runs in a child process and the CLI at once.

A task is a record of its inputs; `run` does it. Paths are allowed here because they never come from the network.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from shared.kernel.progress import Progress
from shared.kernel.records import Record, SurgeryPlan
from shared.wire.footprint import FootprintAnswer, ServingShape, VariantShape
from shared.wire.names import Parameters
from shared.wire.surgeon_jobs import SkippingResult
from shared.wire.surgeries import SurgeryTable
from surgeon.quality.sanity import Evaluation
from surgeon.search.base import SearchInputs
from surgeon.verification.comparison import Verification

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


class FootprintTask(Record):
    """Checkpoint -> what its variants take in memory; only headers are read."""

    task: Literal["footprint"] = "footprint"
    source: Path
    quantization: str
    items: tuple[tuple[VariantShape, ServingShape], ...]


class SurgeriesTask(Record):
    """Model file and surgeries in order -> model file; or with `prove`, the proof that `target` is what they make."""

    task: Literal["surgeries"] = "surgeries"
    base: Path
    target: Path
    surgeries: tuple[SurgeryTable, ...]
    prove: bool = False


class SearchTask(SearchInputs):
    """A search by name with its parameters -> plan and report."""

    task: Literal["search"] = "search"
    search: str
    parameters: Parameters = Field(default={})


class SkippingTask(Record):
    """GGUF, statistics and questions -> what dynamic skipping would do."""

    task: Literal["skipping"] = "skipping"
    model: Path
    statistics: Path
    questions: tuple[tuple[Path, str], ...]
    threads: int = 1


Task = Annotated[
    SurgeriesTask
    | SearchTask
    | SkippingTask
    | ConvertTask
    | ConvertDllamaTask
    | QuantizeTask
    | ObserveTask
    | EvaluateTask
    | FootprintTask,
    Field(discriminator="task"),
]
TASK: TypeAdapter[Task] = TypeAdapter(Task)


class Done(Record):
    """What a task returns besides its files."""

    n_tokens: int = 0
    evaluation: Evaluation | None = None
    plan: SurgeryPlan | None = None
    verification: Verification | None = None
    report: dict[str, Any] = Field(default={})
    skipping: SkippingResult | None = None
    footprints: tuple[FootprintAnswer, ...] = ()


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
    if isinstance(task, FootprintTask):
        from surgeon.footprint.calculate import calculate

        return Done(footprints=calculate(task.source, task.quantization, task.items, on_progress))
    if isinstance(task, SurgeriesTask):
        return _surgeries(task, on_progress)
    if isinstance(task, ObserveTask):
        return _observe(task, on_progress)
    if isinstance(task, SearchTask):
        from surgeon.search.registry import perform, search_named

        found = perform(search_named(task.search, task.parameters), task, on_progress)
        return Done(plan=found.plan, report=found.report)
    if isinstance(task, SkippingTask):
        from surgeon.observation import statistics
        from surgeon.search.skipping import evaluate_skipping

        observed = statistics.load(task.statistics)
        return Done(skipping=evaluate_skipping(task.model, observed, task.questions, threads=task.threads))
    from surgeon.quality.sanity import evaluate

    evaluation = evaluate(
        task.model, heldout=task.heldout, prompts=task.prompts, threads=task.threads, max_tokens=task.max_tokens,
        on_progress=on_progress,
    )  # fmt: skip
    return Done(n_tokens=evaluation.n_tokens, evaluation=evaluation)


def _surgeries(task: SurgeriesTask, on_progress: Progress) -> Done:
    from surgeon.kinds.registry import read_list
    from surgeon.kinds.sequence import perform, prove

    surgeries = read_list([table.model_dump(mode="json") for table in task.surgeries], "surgery")
    if task.prove:
        return Done(verification=prove(surgeries, task.base, task.target))
    perform(surgeries, task.base, task.target, on_progress)
    return Done()


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
