"""What ran and what was asked, in words: the builds of agents and engines, and the sets of questions.

Not here: judging a difference (`orchestrator.domain.run.validity`, `orchestrator.domain.analysis.campaign_validity`).
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from orchestrator.domain.run.question_sets import QuestionSet, Trust
from orchestrator.domain.run.records import RunInput
from orchestrator.reports.tables import Table
from orchestrator.results.read_model import CampaignResults
from shared.kernel.build import SoftwareBuild
from shared.llama.build import EngineBuild

Build = TypeVar("Build", SoftwareBuild, EngineBuild)

_TRUST: Mapping[Trust, str] = {
    "known": "the published set, by its known hash",
    "first_use": "trusted on first use by this lab",
    "own": "the task's own files",
}


def builds_table(data: CampaignResults) -> Table | None:
    """Return what each agent of the campaign ran, equal ones in one row; None where nobody said so."""
    rows = [
        (names, what, str(build), build.release or "-", build.code_sha256[:12], build.packages_sha256[:12])
        for names, what, build in (*_of_campaign(data), *_of_runs(data))
    ]
    if not rows:
        return None
    differ = " ".join(differences(data))
    return Table(
        title="What ran where",
        head=("agents", "as of", "build", "release", "code", "packages"),
        rows=tuple(rows),
        note="Code is the hash of all of the project's files, packages that of name and version of everything else that"
        f" is installed. {differ or 'All agents ran the same code, and all nodes the same engine.'}",
    )  # fmt: skip


def engines_table(data: CampaignResults) -> Table | None:
    """Return the engine that each node had installed, equal ones in one row; None where nobody said so."""
    found = _grouped(
        {name: engine for run in _runs(data) for name, engine in run.provenance.engines.items()}
        or dict(data.campaign.engines)
    )
    if not found:
        return None
    return Table(
        title="Engines",
        head=("nodes", "llama.cpp", "ggml", "OpenMP", "repack", "KleidiAI", "RPC", "compiled with", "libraries"),
        rows=tuple(
            (
                names, one.build, " ".join(filter(None, (one.ggml_version, one.ggml_commit))) or "-",
                *("yes" if has else "no" for has in (one.openmp, one.repack, one.kleidiai, one.rpc)),
                " ".join(one.features) or "-", one.libraries_sha256[:12],
            )
            for names, one in found
        ),
        note="As each node had it installed. Libraries is the hash of all its machine code: equal hashes, equal code.",
    )  # fmt: skip


def differences(data: CampaignResults) -> list[str]:
    """Name the agents whose code, packages or engine are not those of the others, in sentences."""
    software: dict[str, SoftwareBuild] = dict(data.campaign.software)
    engines: dict[str, EngineBuild] = dict(data.campaign.engines)
    for run in _runs(data):
        software |= run.provenance.software
        engines |= run.provenance.engines
    nodes = {name: build for name, build in software.items() if name in engines}
    return [
        *_differing("code", {name: str(build) for name, build in software.items()},
                    {name: build.code_sha256 for name, build in software.items()}),
        *_differing("packages", {name: build.packages_sha256[:12] for name, build in nodes.items()},
                    {name: build.packages_sha256 for name, build in nodes.items()}),
        *_differing("engine", {name: f"{one.build} ({one.libraries_sha256[:12]})" for name, one in engines.items()},
                    {name: one.libraries_sha256 for name, one in engines.items()}),
    ]  # fmt: skip


def question_rows(runs: Iterable[RunInput]) -> list[tuple[str, str]]:
    """Return what was asked of each task, a row a set: more than one of a task is a defect of the campaign."""
    sets = dict.fromkeys(asked for run in runs for asked in run.question_sets)
    return [(f"questions of {one.task}", _of_set(one)) for one in sets]


def _of_set(one: QuestionSet) -> str:
    return (
        f"{one.asked} of {one.available}, {one.shots} shots; SHA-256 {one.docs_sha256} ({_TRUST[one.trust]}),"
        f" of the prompts {one.prompts_sha256}"
    )


def _runs(data: CampaignResults) -> list[RunInput]:
    return [run for group in data.inputs.values() for run in group]


def _of_campaign(data: CampaignResults) -> list[tuple[str, str, SoftwareBuild]]:
    return [(names, "the campaign's start", build) for names, build in _grouped(data.campaign.software)]


def _of_runs(data: CampaignResults) -> list[tuple[str, str, SoftwareBuild]]:
    """Return what agents ran in runs where it was not what they ran at the campaign's start."""
    found = []
    for run in _runs(data):
        changed = {
            name: build for name, build in run.provenance.software.items() if data.campaign.software.get(name) != build
        }
        found += [(names, run.run_id, build) for names, build in _grouped(changed)]
    return found


def _grouped(builds: Mapping[str, Build]) -> list[tuple[str, Build]]:
    """Return equal builds once, with the names of all who have them."""
    groups: dict[str, tuple[list[str], Build]] = {}
    for name, build in builds.items():
        groups.setdefault(build.model_dump_json(), ([], build))[0].append(name)
    return [(", ".join(names), build) for names, build in groups.values()]


def _differing(what: str, words: Mapping[str, str], values: Mapping[str, str]) -> list[str]:
    by_value: dict[str, list[str]] = {}
    for name, value in values.items():
        by_value.setdefault(value, []).append(name)
    if len(by_value) < 2:
        return []
    told = "; ".join(f"{', '.join(names)}: {words[names[0]]}" for names in by_value.values())
    return [f"Different {what}: {told}."]
