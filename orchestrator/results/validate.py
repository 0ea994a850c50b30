"""Judging a submission that a stranger sends: every defect with its place, its reason and what would cure it.

Three passes: each file against its schema, the arithmetic inside `epi_NNN.json`, and the whole calculation anew from
trace and answers. A defect of one file does not hide those of the others.
"""

import json
from collections.abc import Iterator, Mapping
from math import isclose
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ValidationError

from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.run.alignment import Trace
from orchestrator.domain.run.records import RunInput
from orchestrator.results.files import RUN_FILE, read_json, run_files, run_folders
from orchestrator.results.read_model import load_results
from orchestrator.results.recompute import MeasuredFiles, Recomputed
from orchestrator.results.schema import BenchmarkFile, CampaignFile, EpiFile
from shared.kernel.defects import field_defects
from shared.kernel.errors import DataError
from shared.kernel.records import Record
from shared.kernel.regular_files import RECORDS_BYTES, read_bytes

Severity = Literal["FAIL", "FLAG"]
_KINDS: tuple[tuple[str, type[BaseModel]], ...] = (("run", RunInput), ("benchmark", BenchmarkFile), ("epi", EpiFile))


class Defect(Record):
    """One thing that is wrong (FAIL) or weakens the submission (FLAG)."""

    severity: Severity
    where: str
    what: str
    cure: str = ""


def validate_submission(campaign_dir: Path) -> tuple[Defect, ...]:
    """Return every defect of a result tree, files first; empty when there is nothing to say."""
    if not campaign_dir.is_dir():
        return (Defect(severity="FAIL", where=str(campaign_dir), what="no such folder"),)
    defects = list(_schema(CampaignFile, campaign_dir, Path("campaign.json")))
    try:
        runs = list(_runs(campaign_dir))
    except DataError as error:
        return (
            *defects,
            Defect(severity="FAIL", where=error.where, what=error.message, cure="send the files themselves"),
        )
    if not runs:
        what = "the folder holds no run: no <configuration>/run_NNN.json or epi_NNN.json"
        defects.append(Defect(severity="FAIL", where=".", what=what, cure="see docs/epi.md for the result tree"))
    readable = True
    for name, digits in runs:
        folder = Path(name)
        found = [d for kind, model in _KINDS for d in _schema(model, campaign_dir, folder / f"{kind}_{digits}.json")]
        found += _arithmetic(campaign_dir, Path(name) / f"epi_{digits}.json")
        whole = not any(d.severity == "FAIL" for d in found)
        readable = readable and whole
        defects += found
        if whole:
            defects += _recalculated(campaign_dir, name, int(digits))
    if readable and runs and not any(d.severity == "FAIL" for d in defects):
        defects += _campaign(campaign_dir)
    return tuple(defects)


def _runs(campaign_dir: Path) -> Iterator[tuple[str, str]]:
    for folder in run_folders(campaign_dir):
        found = {match[2] for path in folder.iterdir() if (match := RUN_FILE.match(path.name))}
        for digits in sorted(found):
            yield folder.name, digits


def _schema(model: type[BaseModel], root: Path, path: Path) -> Iterator[Defect]:
    """Yield every field of a file that does not fit, not only the first."""
    try:
        model.model_validate_json(read_bytes(root / path, RECORDS_BYTES, follow_links=False))
    except FileNotFoundError:
        cure = "it is needed to calculate the result anew" if path.name[:3] in ("run", "ben") else ""
        yield Defect(severity="FAIL", where=str(path), what="the file is missing", cure=cure)
    except OSError as error:
        yield Defect(severity="FAIL", where=str(path), what=f"cannot be read: {error.strerror}")
    except ValidationError as error:
        for field, reason in field_defects(error)[:20]:
            where = f"{path}: {field or '(whole file)'}"
            yield Defect(severity="FAIL", where=where, what=reason, cure="see the JSON Schema")


def _arithmetic(root: Path, path: Path) -> Iterator[Defect]:
    """Check what an `epi_NNN.json` says against itself; works on files that do not fit the whole schema too."""
    try:
        document: Any = json.loads(read_bytes(root / path, RECORDS_BYTES, follow_links=False))
    except (OSError, ValueError, RecursionError):
        return
    if not isinstance(document, dict):
        return

    def value(block: str, name: str) -> float | None:
        inner = document.get(block)
        found = inner.get(name) if isinstance(inner, dict) else None
        if not isinstance(found, int | float) or isinstance(found, bool) or not abs(found) < 1e300:
            return None
        return float(found)

    total, tokens, seconds = (value("energy", n) for n in ("total_joules", "total_tokens", "duration_seconds"))
    per_token, composite = value("energy", "joules_per_token"), value("accuracy", "composite")
    claims = [
        ("energy.joules_per_token", per_token, _over(total, tokens), "total_joules / total_tokens"),
        ("energy.avg_watts_cluster", value("energy", "avg_watts_cluster"), _over(total, seconds), "joules / seconds"),
        ("energy.kwh_total", value("energy", "kwh_total"), _over(total, 3.6e6), "total_joules / 3.6e6"),
        ("epi.joules_per_token", value("epi", "joules_per_token"), per_token, "energy.joules_per_token"),
        ("epi.accuracy_composite", value("epi", "accuracy_composite"), composite, "accuracy.composite"),
        ("epi.value", value("epi", "value"), _over(per_token, composite), "joules_per_token / accuracy"),
    ]
    for field, written, expected, rule in claims:
        if written is not None and expected is not None and not isclose(written, expected, rel_tol=1e-6):
            what = f"is {written:.9g}, but {rule} is {expected:.9g}"
            yield Defect(severity="FAIL", where=f"{path}: {field}", what=what)
    peak, average = value("energy", "peak_watts_cluster"), value("energy", "avg_watts_cluster")
    if peak is not None and average is not None and peak < average:
        yield Defect(severity="FAIL", where=f"{path}: energy.peak_watts_cluster", what="is below the average power")
    for name in ("mmlu_5shot", "arc_challenge_25shot", "hellaswag_10shot", "composite"):
        share = value("accuracy", name)
        if share is not None and not 0 <= share <= 1:
            cure = "accuracies are fractions, not percent"
            yield Defect(severity="FAIL", where=f"{path}: accuracy.{name}", what="is outside 0..1", cure=cure)


def _over(top: float | None, bottom: float | None) -> float | None:
    return None if top is None or not bottom else top / bottom


def _recalculated(root: Path, name: str, repetition: int) -> Iterator[Defect]:
    folder = Path(name)
    try:
        asked = RunReference.of(configuration=name, repetition=repetition)
        written = read_json(EpiFile, run_files(root, asked)["epi"])
        measured = MeasuredFiles.read(root, asked)
        again = measured.recompute()
    except DataError as error:
        yield Defect(severity="FAIL", where=error.where or str(folder), what=error.message, cure=error.hint)
        return
    if measured.run.reference != asked:
        what = f"says {measured.run.configuration_id}, repetition {measured.run.repetition}"
        where = f"{folder}/run_{repetition:03d}.json"
        yield Defect(severity="FAIL", where=where, what=what, cure="files were mixed up")
    for difference in Recomputed(asked, again, written).differences:
        cure = "the written result does not follow from trace and answers: run `epi results calc --write`"
        yield Defect(severity="FAIL", where=f"{folder}/epi_{repetition:03d}.json", what=difference, cure=cure)
    for finding in again.evaluation.validity.findings:
        severity: Severity = "FAIL" if finding.verdict == "FAIL" else "FLAG"
        where = f"{folder}/run_{repetition:03d}: {finding.where}"
        yield Defect(severity=severity, where=where, what=f"{finding.rule}: {finding.reason}")
    yield from _trace(measured.traces, f"{folder}/power_trace_{repetition:03d}.csv")


def _trace(traces: Mapping[str, Trace], where: str) -> Iterator[Defect]:
    """Look for what damages meters' data: stuck values, a coarse grid, negative power, too few nodes."""
    for node, trace in traces.items():
        power = trace.power_w
        place = f"{where}: {node}"
        if power.size < 2:
            yield Defect(severity="FAIL", where=place, what=f"{power.size} samples")
            continue
        if power.size >= 20 and float(np.ptp(power)) == 0:
            what = f"every one of {power.size} samples is {power[0]:.4g} W"
            yield Defect(severity="FAIL", where=place, what=what, cure="the channel is stuck or was never measured")
        elif power.size >= 20 and bool(np.all(power == np.round(power))):
            what = "all powers are whole watts: the meter's resolution, not the load, sets the error"
            yield Defect(severity="FLAG", where=place, what=what, cure="raise the meter's resolution or log energy")
        if bool((power < 0).mean() > 0.01):
            cure = "a current transformer the wrong way round gives negative power"
            yield Defect(severity="FAIL", where=place, what="more than 1 % of the powers are negative", cure=cure)


def _campaign(root: Path) -> Iterator[Defect]:
    try:
        data = load_results(root)
        for finding in data.validity.findings:
            severity: Severity = "FAIL" if finding.verdict == "FAIL" else "FLAG"
            yield Defect(severity=severity, where=finding.where, what=f"{finding.rule}: {finding.reason}")
        for group in data.inputs.values():
            if group[0].protocol != data.campaign.protocol:
                what = "was measured by another protocol than campaign.json names"
                yield Defect(severity="FAIL", where=group[0].run_id, what=what)
            missing = [name for name in ("model_sha256", "engine_build") if getattr(group[0].provenance, name) is None]
            if missing:
                what = f"provenance unknown: {', '.join(missing)}"
                yield Defect(severity="FLAG", where=group[0].run_id, what=what, cure="others cannot repeat it exactly")
    except DataError as error:
        yield Defect(severity="FAIL", where=error.where or ".", what=error.message, cure=error.hint)
