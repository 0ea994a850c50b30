"""The commands on files: info, convert, quantize, apply, kinds, verify, validate."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from shared.bars import progress_bar
from shared.kernel.errors import ConfigurationError
from shared.kernel.progress import throttled
from shared.kernel.visible import visible_line
from surgeon.cli.output import Json, Threads, absolute, run_task, show, show_listing

app = typer.Typer()

Checkpoint = Annotated[Path, typer.Argument(help="GGUF, distributed-llama .m, or a directory of safetensors.")]

SurgeriesFile = Annotated[
    Path, typer.Argument(help="Plan from `epi surgery plan`, or a JSON list of surgeries (`epi surgery kinds`).")
]


class OutType(StrEnum):
    """Number formats of a converted file."""

    F16 = "F16"
    BF16 = "BF16"
    F32 = "F32"
    Q40 = "Q40"
    Q80 = "Q80"


@app.command()
def info(model: Checkpoint, as_json: Json = False) -> None:
    """Say what model a checkpoint is.

    Example: epi surgery info qwen3-30b-a3b.gguf
    """
    from shared.checkpoints import surgery

    found = surgery.describe(model)
    text = (
        f"{found.architecture} ({found.format} {found.quantization}): {found.n_layers} layers of {found.n_experts}"
        f" experts, {found.experts_per_token} active, {found.size_bytes / 1e9:.3f} GB"
    )
    show(as_json, found.model_dump(mode="json"), text)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Directory with config.json, tokenizer.json and safetensors.")],
    target: Annotated[Path, typer.Argument(help="NAME.gguf, or NAME.m or NAME.t for distributed-llama.")],
    outtype: Annotated[OutType | None, typer.Option(help="Number format: F16 of a .gguf, Q40 of a .m.")] = None,
    as_json: Json = False,
) -> None:
    """Convert a Hugging Face checkpoint to GGUF or to distributed-llama's files, without PyTorch.

    Example: epi surgery convert Qwen3-30B-A3B/ qwen3-f16.gguf

    Example: epi surgery convert Qwen3-30B-A3B/ qwen3.m && epi surgery convert Qwen3-30B-A3B/ qwen3.t
    """
    from surgeon.work.tasks import ConvertDllamaTask, ConvertTask, Task

    task: Task
    if target.suffix in (".m", ".t"):
        task = ConvertDllamaTask(
            source=source.resolve(),
            target=target.resolve(),
            weights=(outtype or OutType.Q40).value,
            tokenizer=target.suffix == ".t",
        )
    else:
        if outtype in (OutType.Q40, OutType.Q80):
            raise ConfigurationError(f"{outtype.value} is distributed-llama's", hint="name the target NAME.m")
        chosen = (outtype or OutType.F16).value
        task = ConvertTask.model_validate({"source": source.resolve(), "target": target.resolve(), "outtype": chosen})
    run_task(task, "convert")
    _report_file(as_json, target)


@app.command()
def quantize(
    source: Annotated[Path, typer.Argument(help="GGUF in F32, F16 or BF16.")],
    target: Annotated[Path, typer.Argument(help="GGUF to write.")],
    quantization: Annotated[str, typer.Argument(help="For example Q4_K_M, Q4_0, Q8_0.")] = "Q4_K_M",
    imatrix: Annotated[Path | None, typer.Option(help="Statistics observed with --columns.")] = None,
    plan: Annotated[Path | None, typer.Option(help="Plan that SOURCE was cut with: cuts the matrix too.")] = None,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Quantise with llama.cpp's own quantiser: the bytes are llama-quantize's.

    Example: epi surgery quantize qwen3-f16.gguf qwen3-q4.gguf Q4_K_M --threads 4

    Example: epi surgery quantize cut-f16.gguf cut-iq3.gguf IQ3_S --imatrix statistics.safetensors --plan drop16.json
    """
    from surgeon.work.tasks import QuantizeTask

    task = QuantizeTask(
        source=source.resolve(), target=target.resolve(), quantization=quantization, threads=threads,
        statistics=absolute(imatrix), plan=absolute(plan),
    )  # fmt: skip
    run_task(task, f"quantise to {quantization}")
    _report_file(as_json, target)


@app.command()
def apply(
    base: Checkpoint,
    plan: SurgeriesFile,
    target: Annotated[Path, typer.Argument(help="Where the result goes; replaced when it is a file.")],
    as_json: Json = False,
) -> None:
    """Apply a plan by copying byte ranges, or surgeries one after the other; all or nothing.

    Example: epi surgery apply qwen3-q4.gguf drop16.json qwen3-q4-drop16.gguf
    """
    from surgeon.kinds.sequence import perform
    from surgeon.planning.plan_file import read_surgeries

    with progress_bar("apply") as publish:
        name = perform(read_surgeries(plan), base, target, throttled(publish))
    # No hash of the result: it would take as long as the surgery, and `verify` proves more.
    size = sum(entry.stat().st_size for entry in target.iterdir()) if target.is_dir() else target.stat().st_size
    show(as_json, {"target": str(target), "size_bytes": size, "plan_hash": name},
         f"{target}: {size / 1e9:.3f} GB, plan {name[:16]}")  # fmt: skip


@app.command()
def kinds(as_json: Json = False) -> None:
    """List the kinds of surgery that a list of surgeries may name: parameters, formats and sources.

    Example: epi surgery kinds
    """
    from surgeon.work.named import kind_infos

    columns = {"kind": "name", "does": "description", "parameters": None, "formats": "formats", "source": "source"}
    show_listing(kind_infos(), columns, as_json)


@app.command()
def verify(
    base: Checkpoint,
    plan: SurgeriesFile,
    result: Annotated[Path, typer.Argument(help="What came out.")],
    as_json: Json = False,
) -> None:
    """Prove that a result is what base and plan, or surgeries, make of it, range by range.

    Example: epi surgery verify qwen3-q4.gguf drop16.json qwen3-q4-drop16.gguf
    """
    from surgeon.kinds.sequence import prove
    from surgeon.planning.plan_file import read_surgeries

    report = prove(read_surgeries(plan), base, result)
    text = (
        f"proved: {report.n_tensors} tensors, {report.n_ranges} ranges, {report.n_bytes / 1e9:.3f} GB equal;"
        f" plan {report.plan_sha256[:16]}"
    )
    show(as_json, report.model_dump(mode="json"), text)


@app.command()
def validate(
    model: Annotated[Path, typer.Argument(help="GGUF to judge.")],
    baseline: Annotated[Path | None, typer.Option(help="GGUF to compare with.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Sanity prompts, JSON lines.")] = None,
    heldout: Annotated[Path | None, typer.Option(help="Held-out text for the perplexity.")] = None,
    max_perplexity_ratio: Annotated[float, typer.Option(min=0.0, help="Highest allowed, variant over baseline.")] = 4.0,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Ask sanity prompts, measure perplexity, and say whether the variant may be deployed; exit code 3 when not.

    Example: epi surgery validate drop16.gguf --baseline base.gguf --prompts sanity.jsonl --heldout heldout.txt
    """
    from surgeon.quality.gate import verdict
    from surgeon.work.tasks import EvaluateTask

    def seen(path: Path, what: str):  # type: ignore[no-untyped-def]
        task = EvaluateTask(model=path.resolve(), heldout=absolute(heldout), prompts=absolute(prompts), threads=threads)
        return run_task(task, what).evaluation

    before = seen(baseline, "baseline") if baseline is not None else None
    result = verdict(seen(model, "variant"), before, max_perplexity_ratio=max_perplexity_ratio)
    lines = [f"{'ok ' if answer.ok else 'BAD'} {answer.prompt!r} -> {answer.answer!r} {visible_line(answer.reason)}"
             for answer in result.answers]  # fmt: skip
    if result.perplexity is not None:
        compared = "" if result.baseline_perplexity is None else f" (baseline {result.baseline_perplexity:.4g})"
        lines.append(f"perplexity {result.perplexity:.4g}{compared}")
    lines.append("may be deployed" if result.ok else f"stopped: {result.reason}")
    show(as_json, result.model_dump(mode="json"), "\n".join(lines))
    if not result.ok:
        raise typer.Exit(3)


def _report_file(as_json: bool, path: Path) -> None:
    from shared.files.durability import hash_file

    sha256, size = hash_file(path), path.stat().st_size
    show(as_json, {"target": str(path), "sha256": sha256, "size_bytes": size},
         f"{path}: {size / 1e9:.3f} GB, sha256 {sha256}")  # fmt: skip
