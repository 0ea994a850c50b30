"""`epi data`: fetch and check the published benchmarks (MMLU, ARC-Challenge, HellaSwag)."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from orchestrator.benchmarks.published import PUBLISHED, Published
from shared.bars import progress_bar
from shared.kernel.errors import ConfigurationError
from shared.screen import Screen, say_json

app = typer.Typer(help="Benchmark questions: fetch them, or check what is here.", no_args_is_help=True)

Names = Annotated[list[str] | None, typer.Argument(help="mmlu, arc_challenge, hellaswag; none means all three")]
DataDirOption = Annotated[
    Path | None, typer.Option("--data-dir", help="default: $EPI_DATA_DIR, or the user's data directory")
]


@app.command()
def fetch(
    names: Names = None,
    data_dir: DataDirOption = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="take files from this folder instead of the internet")
    ] = None,
) -> None:
    """Bring benchmark questions into the data directory; what is already here is kept."""
    from orchestrator.benchmarks import fetch as fetching
    from orchestrator.benchmarks.data_dir import default_data_dir

    root = data_dir or default_data_dir()
    chosen = _chosen(names)
    if source is not None and len(chosen) != 1:
        raise ConfigurationError("--from takes the files of one benchmark", hint="epi data fetch mmlu --from X")
    console = Screen(stderr=True)
    for benchmark in chosen:
        if source is not None:
            written = fetching.import_folder(benchmark, source, root)
        else:
            written = _download(benchmark, root, console)
        for path in written:
            console.print(f"{benchmark.name}: {path}")
        if not written:
            console.print(f"{benchmark.name}: already here")


@app.command()
def check(
    names: Names = None,
    data_dir: DataDirOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Read every question that is here and compare with the published numbers. Exit code 1 if one cannot be asked."""
    from orchestrator.benchmarks import fetch as fetching
    from orchestrator.benchmarks.data_dir import default_data_dir

    root = data_dir or default_data_dir()
    found = [fetching.check(benchmark, root) for benchmark in _chosen(names)]
    if as_json:
        say_json([status.model_dump(mode="json") for status in found], indent=2)
    else:
        columns = ("benchmark", "split", "questions", "published", "SHA-256", "as known")
        table = Table(*columns, title=f"Benchmarks in {root}")
        for status in found:
            for split in status.splits:
                published = "" if split.expected is None else str(split.expected)
                known = {True: "yes", False: "NO", None: "no hash is known"}[split.known]
                table.add_row(status.name, split.split, str(split.questions), published, split.sha256[:12], known)
        console = Screen()
        console.print(table)
        for status in found:
            subjects = f", {status.subjects} subjects" if status.subjects is not None else ""
            verdict = "can be asked" if status.usable else "cannot be asked"
            note = f" ({status.problem})" if status.problem else ""
            console.print(f"{status.name}: {verdict}{subjects}{note}", soft_wrap=True)
    if not all(status.usable for status in found):
        raise typer.Exit(1)


def _download(benchmark: Published, root: Path, console: Screen) -> list[Path]:
    from orchestrator.benchmarks import fetch as fetching

    with progress_bar(benchmark.name, console) as publish:

        def show(name: str, done: int, total: int | None) -> None:
            of_all = "" if total is None else f" of {total / 1e6:.1f}"
            publish(done / total if total else 0.0, f"{name}: {done / 1e6:.1f}{of_all} MB")

        return fetching.download(benchmark, root, show)


def _chosen(names: list[str] | None) -> list[Published]:
    unknown = [name for name in names or () if name not in PUBLISHED]
    if unknown:
        raise ConfigurationError(f"no benchmark is called {unknown[0]!r}", hint=f"known: {', '.join(PUBLISHED)}")
    return [PUBLISHED[name] for name in names or PUBLISHED]
