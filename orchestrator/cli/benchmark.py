"""`epi benchmark`: ask any benchmark of one model on one node, outside a campaign; a stopped pass goes on."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.table import Table

from orchestrator.domain.campaign.timeouts import TimeoutsSpec
from shared.bars import progress_bar
from shared.files.artifacts import ArtifactInfo
from shared.files.atomic import write_file
from shared.kernel.clock import utc_ns
from shared.kernel.errors import ConfigurationError
from shared.kernel.progress import Progress
from shared.screen import Screen, say
from shared.service.auth import load_token
from shared.service.tls import CA_VARIABLE, lab_ca
from shared.wire.client import AgentClient
from shared.wire.job_keys import BenchmarkJob
from shared.wire.node_jobs.engines import StartEngineParams, StartEngineResult
from shared.wire.node_jobs.workloads import GenerateParams, GenerateResult, ScoreParams, ScoreResult
from shared.wire.protocol import JobState

if TYPE_CHECKING:
    from orchestrator.benchmarks.records import SuiteResult, SuiteSpec

app = typer.Typer(help="Ask a benchmark of one model, outside a campaign.", no_args_is_help=True)

Answer = TypeVar("Answer", ScoreResult, GenerateResult)
_TIMEOUTS = TimeoutsSpec()
"""A campaign's own, which say when a job of this size counts as hanging."""


@app.command()
def run(
    tasks: Annotated[list[str], typer.Argument(help="lm-eval tasks or groups, ours or its own; NAME:SHOTS sets shots")],
    node: Annotated[str, typer.Option(help="the root node's agent, e.g. http://127.0.0.1:8701")],
    model: Annotated[str, typer.Option(help="SHA-256 of the model, which the node must have")],
    out: Annotated[Path, typer.Option(help="result (JSON); answers are kept beside it until it is written")],
    token_file: Annotated[Path | None, typer.Option(help="the node's bearer token")] = None,
    ca_file: Annotated[
        Path | None, typer.Option(envvar=CA_VARIABLE, help="The lab's own CA, pinned; for an https --node.")
    ] = None,
    worker: Annotated[list[str] | None, typer.Option(help="RPC workers, host:port; none: the node alone")] = None,
    questions: Annotated[int | None, typer.Option(min=1, help="per task, stratified and seeded; default: all")] = None,
    seed: Annotated[int, typer.Option(help="of the subset")] = 1,
    task_dir: Annotated[list[Path] | None, typer.Option(help="directories with task YAML files")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="published benchmarks; default: $EPI_DATA_DIR")] = None,
    context_tokens: Annotated[int, typer.Option(min=64, help="Context of each sequence.")] = 8192,
    sequences: Annotated[int, typer.Option(min=2, max=256, help="Sequences scored at once.")] = 32,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each node.")] = 4,
    experts_per_token: Annotated[
        int | None, typer.Option(min=1, help="K: active experts a token; default: the model's own")
    ] = None,
    questions_per_job: Annotated[int, typer.Option(min=1, help="answers are kept job by job")] = 200,
) -> None:
    """Ask TASKS of the model and write every answer to OUT. Run it again after a stop: it goes on where it was."""
    from orchestrator.benchmarks.records import SuiteSpec

    spec = SuiteSpec.model_validate(
        {
            "tasks": [_task(text) for text in tasks],
            "questions": questions,
            "seed": seed,
            "include_paths": task_dir or (),
            "data_dir": data_dir,
        }
    )
    engine = StartEngineParams(
        model_sha256=model, workers=tuple(worker or ()), context_tokens=context_tokens, sequences=sequences,
        threads=threads, experts_per_token=experts_per_token,
    )  # fmt: skip
    client = AgentClient(node, load_token(token_file), ca_file=lab_ca(ca_file))
    result = asyncio.run(_run(client, spec, engine, out, questions_per_job))
    table = Table("task", "questions", "accuracy", "metric", "shots")
    for asked in result.tasks:
        share = result.accuracy[asked.task]
        table.add_row(asked.task, str(asked.asked), f"{share:.4f}", asked.metric, str(asked.shots))
    Screen().print(table)


@app.command("list")
def list_tasks(
    task_dir: Annotated[list[Path] | None, typer.Option(help="directories with task YAML files")] = None,
) -> None:
    """List the lab's own benchmark tasks; besides, any task of lm-eval can be named."""
    from orchestrator.benchmarks.task_files import TaskFiles

    for name, path in TaskFiles(tuple(task_dir or ())).own():
        say(f"{name}  {path}")


def _task(text: str) -> dict[str, object]:
    name, _, shots = text.partition(":")
    if shots and not shots.isdigit():
        raise ConfigurationError(f"{text!r}: after the colon comes the number of shots", hint="e.g. mmlu:5")
    return {"name": name, "shots": int(shots) if shots else None}


class _NodeAsk:
    """`score` and `generate` of a suite: runs jobs on the node from the suite's thread, and shows how far it is."""

    def __init__(
        self, client: AgentClient, started_utc_ns: int, loop: asyncio.AbstractEventLoop, progress: Progress
    ) -> None:
        self._client = client
        self._started_utc_ns = started_utc_ns
        self._loop = loop
        self._progress = progress
        self._questions = 1
        self._answered = 0.0
        self._jobs = 0

    def expect(self, questions: int, answered: int) -> None:
        """Say how many questions there are and how many of them are answered already."""
        self._questions = questions
        self._tell(answered)

    def _tell(self, answered: float) -> None:
        self._answered = answered
        self._progress(answered / max(self._questions, 1), f"{answered:.0f} of {self._questions}")

    def score(self, params: ScoreParams) -> ScoreResult:
        """Have one job scored and wait for its answer."""
        asked = sum(len(group.items) for group in params.groups)
        return self._run(ScoreResult, "score", params, asked, _TIMEOUTS.score(params))

    def generate(self, params: GenerateParams) -> GenerateResult:
        """Have the texts of one job written and wait for them."""
        return self._run(GenerateResult, "generate", params, len(params.items), _TIMEOUTS.generate(params))

    def _run(
        self, result: type[Answer], kind: str, params: ScoreParams | GenerateParams, asked: int, timeout_s: float
    ) -> Answer:
        self._jobs += 1
        before = self._answered

        def show(state: JobState) -> None:
            self._tell(before + state.progress * asked)

        key = BenchmarkJob(utc_ns=self._started_utc_ns, kind=kind, number=self._jobs)
        job = self._client.run_as(result, key.format(), kind, params, timeout_s=timeout_s, on_progress=show)
        answer = asyncio.run_coroutine_threadsafe(job, self._loop).result()
        self._tell(before + asked)
        return answer


async def _size_of(client: AgentClient, sha256: str) -> int:
    """Return the size of a model on the node; 0 where it is not there, which loading it will say."""
    found = (ArtifactInfo.model_validate(one) for one in await client.request("GET", "/v1/artifacts"))
    return next((info.size_bytes for info in found if info.sha256 == sha256), 0)


async def _run(
    client: AgentClient, spec: "SuiteSpec", engine: StartEngineParams, out: Path, questions_per_job: int
) -> "SuiteResult":
    from orchestrator.benchmarks.resume import ResumableScore
    from orchestrator.benchmarks.suite import BenchmarkSuite

    now = utc_ns()  # every start is a new job; what is answered is kept on this side
    console = Screen(stderr=True)
    try:
        with console.status("reading the benchmarks"):
            suite = await asyncio.to_thread(BenchmarkSuite, spec)
        with console.status("loading the model"):
            key = BenchmarkJob(utc_ns=now, kind="start_engine", number=1)
            load_s = _TIMEOUTS.transfer("start_engine", await _size_of(client, engine.model_sha256))
            started = await client.run_as(StartEngineResult, key.format(), "start_engine", engine, timeout_s=load_s)
        kept = out.with_name(out.name + ".answers.jsonl")
        with progress_bar("questions", console) as publish:
            ask = _NodeAsk(client, now, asyncio.get_running_loop(), publish)
            score = ResumableScore(
                ask.score, kept, questions_per_job=questions_per_job, generate=ask.generate,
                identity=f"{engine.model_sha256} K={engine.experts_per_token} {started.engine} {started.build}",
            )  # fmt: skip
            ask.expect(suite.n_questions, score.n_kept)
            result = await asyncio.to_thread(suite.run, score, score.generate)
    finally:
        await client.close()
    write_file(out, result.model_dump_json(indent=1) + "\n")
    kept.unlink()
    if score.reused:
        console.print(f"{score.reused} questions were answered before")
    return result
