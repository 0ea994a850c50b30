"""Writer and reader of the result tree: OUT/<campaign>/<configuration>/{run,epi,benchmark,power_trace}_NNN.

Every file appears whole or not at all (`shared.files.atomic`): a reader never sees half a file. JSON is deterministic.
What the numbers mean is in `schema`; how they are calculated in `orchestrator.domain`.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.run.alignment import Trace
from orchestrator.domain.run.evaluate import EvaluatedRun
from orchestrator.domain.run.records import RunInput
from orchestrator.results.schema import BenchmarkFile, CampaignFile, EpiFile
from shared.files.atomic import write_file, write_files
from shared.files.trace_csv import TraceColumn, read_columns
from shared.kernel.defects import first_defect
from shared.kernel.errors import DataError
from shared.kernel.records import NodeName, QuestionResult
from shared.kernel.regular_files import RECORDS_BYTES, leads_outside, read_bytes

RUN_FILE = re.compile(r"(run|epi)_(\d{3,})\.json\Z")
FileKind = Literal["epi", "run", "benchmark", "power_trace"]
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class RunFiles:
    """One run as its files hold it."""

    run: RunInput
    epi: EpiFile
    questions: tuple[QuestionResult, ...]
    sample: tuple[QuestionResult, ...] = ()


def json_bytes(record: BaseModel) -> bytes:
    """Return a record as indented JSON; fields keep the schema's order, floats their shortest exact form."""
    text = json.dumps(record.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def run_files(campaign_dir: Path, run: RunReference) -> dict[FileKind, Path]:
    """Return kind -> path of a run's file, whether it exists or not.

    Raises:
        DataError: the run's folder is a link that leads out of the campaign's folder.
    """
    refuse_outside(campaign_dir, campaign_dir / run.configuration)
    folder, number = campaign_dir / run.configuration, f"{run.repetition:03d}"
    endings: dict[FileKind, str] = {"epi": "json", "run": "json", "benchmark": "json", "power_trace": "csv"}
    return {kind: folder / f"{kind}_{number}.{ending}" for kind, ending in endings.items()}


def write_campaign(campaign_dir: Path, campaign: CampaignFile) -> Path:
    """Write `campaign.json`; call it again when failures are added."""
    path = campaign_dir / "campaign.json"
    write_file(path, json_bytes(campaign))
    return path


def write_run(
    campaign_dir: Path,
    run: RunInput,
    evaluated: EvaluatedRun,
    questions: Sequence[QuestionResult],
    sample: Sequence[QuestionResult] = (),
) -> tuple[Path, ...]:
    """Write the records of a run whose power trace is in its place; the same run again gives equal bytes.

    `run_NNN.json` is written last: a run whose file exists is complete.
    """
    paths = run_files(campaign_dir, run.reference)
    benchmark = BenchmarkFile(
        run_id=run.run_id,
        configuration_id=run.configuration_id,
        repetition=run.repetition,
        accuracy_tasks=run.protocol.accuracy,
        note=run.protocol.accuracy_note,
        questions=tuple(questions),
        sample=tuple(sample),
        # Where no question has joules of its own, the reasons counted in epi_NNN.json say it all.
        question_energy=evaluated.question_energy if evaluated.evaluation.question_energy.resolved else (),
    )
    contents = {
        paths["benchmark"]: json_bytes(benchmark),
        paths["epi"]: json_bytes(EpiFile.of(run, evaluated.evaluation)),
        paths["run"]: json_bytes(run),
    }
    return write_files(contents)


def read_traces(path: Path, nodes: Sequence[NodeName] = ()) -> dict[NodeName, Trace]:
    """Read a power trace, one trace a node, sorted by name; a node has no sample where it sent none.

    `nodes` are channels that the meter is known to have: one of them that sent nothing has an empty trace.

    Raises:
        DataError: no regular file (a link is none), a line that is not timestamp,node,watts, named by its number, or
            two samples of a node at one moment.
    """
    if path.is_symlink():
        raise DataError("a link, not a regular file", where=str(path))
    columns = read_columns(path)
    silent = TraceColumn(np.zeros(0, dtype=np.int64), np.zeros(0))
    found = {node: columns.get(node, silent) for node in sorted({*columns, *nodes})}
    return {node: Trace(node, column.utc_ns, column.watts) for node, column in found.items()}


def read_run(campaign_dir: Path, run: RunReference) -> RunFiles:
    """Read one run without its trace.

    Raises:
        DataError: a file is missing or does not fit its schema; the field is named.
    """
    paths = run_files(campaign_dir, run)
    benchmark = read_json(BenchmarkFile, paths["benchmark"])
    return RunFiles(
        run=read_json(RunInput, paths["run"]),
        epi=read_json(EpiFile, paths["epi"]),
        questions=benchmark.questions,
        sample=benchmark.sample,
    )


def list_runs(campaign_dir: Path) -> Iterator[RunReference]:
    """Yield every complete run, in order.

    Raises:
        DataError: runs in a folder whose name is no configuration's id, or that is a link out of the campaign's.
    """
    for folder in run_folders(campaign_dir):
        names = [match for path in folder.iterdir() if (match := RUN_FILE.match(path.name))]
        for number in sorted(int(match[2]) for match in names if match[1] == "run"):
            yield RunReference.of(configuration=folder.name, repetition=number)


def run_folders(campaign_dir: Path) -> list[Path]:
    """Return the folders of a campaign, by name.

    Raises:
        DataError: one is a link that leads out of the campaign's folder.
    """
    folders = sorted(path for path in campaign_dir.iterdir() if path.is_dir())
    for folder in folders:
        refuse_outside(campaign_dir, folder)
    return folders


def refuse_outside(campaign_dir: Path, folder: Path) -> None:
    """Refuse a folder that leads out of the campaign's: a stranger's tree is read, and written to, nowhere else.

    Raises:
        DataError: it does.
    """
    if folder.is_symlink() and leads_outside(campaign_dir, folder):
        raise DataError("a link that leads out of the campaign's folder", where=str(folder))


def read_json(model: type[M], path: Path) -> M:
    """Read a JSON file into a model.

    Raises:
        DataError: missing, no regular file (a link is none), not JSON, or a field that does not fit, named.
    """
    try:
        return model.model_validate_json(read_bytes(path, RECORDS_BYTES, follow_links=False))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except ValidationError as error:
        raise DataError(str(first_defect(error)), where=str(path)) from error
