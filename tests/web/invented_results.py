"""What the campaign of an invented lab has measured: figures, analysis, runs and their files."""

import math
from functools import cache

from orchestrator.api.models import ConfigurationResult, RunDetail, WindowOtherLoad
from orchestrator.domain.analysis.curve import DepthChance, OperatingPoint
from orchestrator.domain.campaign.cells import PAPER_GROUPS
from orchestrator.domain.campaign.matrix import reference_of
from orchestrator.domain.run.clocks import ClockOffset, NodeClock
from orchestrator.domain.run.disturbances import ForeignLoad
from orchestrator.domain.run.findings import Finding, Validity
from orchestrator.domain.run.question_sets import QuestionSet
from orchestrator.domain.run.records import Provenance
from orchestrator.reports.hypotheses import Hypothesis
from orchestrator.reports.research_questions import Recommendation, ResearchAnswer
from orchestrator.results.power_view import PowerView, power_view
from orchestrator.results.schema import BenchmarkFile, EpiFile
from shared.kernel.build import SoftwareBuild
from shared.kernel.records import Configuration
from shared.llama.build import EngineBuild
from tests.support import domain_lab
from tests.web.states import InventedLab


def results_of(lab: InventedLab) -> list[ConfigurationResult]:
    """Return the figures of what is done."""
    runs = lab.runs()
    found = []
    for one in lab.configurations:
        done = sum(run.state == "done" for run in runs if run.configuration == one.id)
        if done:
            found.append(_result(lab, one, done))
    return found


def _result(lab: InventedLab, one: Configuration, done: int) -> ConfigurationResult:
    effect = {"all": -0.016, "early": -0.004, "late": -0.009}[one.group]
    rise = {"all": 0.004, "early": 0.006, "late": 0.0022}[one.group]
    ratio = 1 + effect * one.depth + rise * one.depth**2 * 0.55
    if lab.state == "no_difference":
        ratio = 1 + 0.004 * math.sin(5 * one.depth + len(one.group))
    accuracy = 0.801 * (1 - 0.003 * one.depth**1.7 * (1.6 if one.group == "early" else 1.0))
    base = 0.0912 if one.layout == "uniform" else 0.0986
    spread = 0.018 + 0.002 * one.depth
    ranged = one.depth > 0 and done > 1
    joules = base * ratio * accuracy / 0.801
    verdict = None
    if one.depth:
        verdict = (
            "unknown"
            if not ranged
            else "better"
            if ratio + spread < 1
            else "worse"
            if ratio - spread > 1
            else "not distinguishable"
        )
    return ConfigurationResult(
        configuration=one,
        reference=reference_of(one) if one.depth else None,
        repetitions=done,
        joules_per_token=joules,
        tokens_per_second=171.0 / ratio,
        accuracy_composite=accuracy,
        accuracies={
            "mmlu_5shot": accuracy - 0.05,
            "arc_challenge_25shot": accuracy,
            "hellaswag_10shot": accuracy + 0.05,
        },
        epi=joules / accuracy,
        epi_ratio=ratio if one.depth else 1.0,
        epi_ratio_low=ratio - spread if ranged else None,
        epi_ratio_high=ratio + spread if ranged else None,
        verdict=verdict,
        validity="FAIL" if one.id == "drop6_early" else "FLAG" if one.depth % 3 == 2 else "PASS",
        emulated=True,
    )


def analysis_of() -> dict[str, object]:
    """Return what the campaign says as a whole, made of the domain's records."""
    chances = (0.02, 0.05, 0.16, 0.24, 0.31, 0.14, 0.06, 0.02, 0.0)
    points = [
        OperatingPoint(
            group=group,
            chances=tuple(
                DepthChance(
                    depth=depth,
                    configuration_id=f"drop{depth}_{group}" if depth else "baseline",
                    probability=chances[(depth + shift) % 9],
                )
                for depth in range(9)
            ),
            most_probable=f"drop{4 - shift}_{group}",
            probability_interior=0.96,
        )
        for shift, group in enumerate(PAPER_GROUPS)
    ]
    found = [
        Hypothesis(name="H1", claim="EPI against depth is U-shaped", answer="supported", sentence="All layers: 0.97."),
        Hypothesis(
            name="H2", claim="The EPI-optimal is not the most accurate", answer="open", sentence="0.81 of draws."
        ),
        Hypothesis(name="H4", claim="Energy does not fall linearly", answer="not measured", sentence="One depth only."),
    ]
    advice = Recommendation(configuration_id="drop4_all", sentence="Use drop4_all: EPI -2.9 % (-5.5 to -0.3 %).")
    return {
        "recommendation": advice.model_dump(),
        "hypotheses": [one.model_dump() for one in found],
        "operating_points": [one.model_dump() for one in points],
        "best_chances": [],
        "pareto": [],
        "questions": [ResearchAnswer(name="RQ1", question="Does it pay?", answer="A little.").model_dump()],
        "validity": Validity(verdict="FLAG", findings=_FINDINGS).model_dump(),
    }


def detail_of(lab: InventedLab, configuration: str, repetition: int) -> RunDetail:
    """Return a run; one that is done was evaluated by the product's own code."""
    status = next(run for run in lab.runs() if (run.configuration, run.repetition) == (configuration, repetition))
    if status.state != "done":
        return RunDetail(status=status)
    run, evaluated, _ = _measured(configuration, repetition)
    epi = EpiFile.of(run, evaluated.evaluation).model_dump(mode="json")
    return RunDetail(
        status=status, windows=run.windows, epi=epi, files=("epi", "run", "benchmark", "power_trace"),
        other_load=tuple(
            WindowOtherLoad(label=window.label, nodes=dict.fromkeys(("n1", "n2", "n3", "n4"), _OTHER_LOAD))
            for window in run.windows
        ),
        validity=evaluated.evaluation.validity,
        clocks={"n1": NodeClock(
            before=ClockOffset(utc_ns=run.timestamp_utc_ns, offset_ns=1_200_000, uncertainty_s=4e-4),
            after=ClockOffset(utc_ns=run.timestamp_utc_ns + 10**11, offset_ns=1_350_000, uncertainty_s=4e-4),
        )},
    )  # fmt: skip


_OTHER_LOAD = ForeignLoad(cpu_share=0.07, programs=(("apt-get, pid 812", 0.06), ("sshd, pid 9", 0.01)), steal_share=0)


def file_of(configuration: str, repetition: int, kind: str) -> bytes:
    """Return a file of a run that is done."""
    run, evaluated, samples = _measured(configuration, repetition)
    if kind == "power_trace":
        return domain_lab.trace_csv(samples)
    if kind == "benchmark":
        return (
            BenchmarkFile(
                run_id=run.run_id,
                configuration_id=run.configuration_id,
                repetition=repetition,
                accuracy_tasks=run.protocol.accuracy,
                note=run.protocol.accuracy_note,
                questions=_QUESTIONS,
            )
            .model_dump_json()
            .encode()
        )
    return (EpiFile.of(run, evaluated.evaluation) if kind == "epi" else run).model_dump_json().encode()


def power_of(
    configuration: str, repetition: int, start_utc_ns: int | None, end_utc_ns: int | None, columns: int
) -> PowerView:
    """Return the power of a run that is done, as the product shows it."""
    _, _, samples = _measured(configuration, repetition)
    return power_view(domain_lab.traces_of(samples), start_utc_ns, end_utc_ns, columns)


_FINDINGS = (
    Finding(rule="demo durations", verdict="FLAG", reason="windows of 2 s: shorter than the 60 s of a lab"),
    Finding(rule="instrument", verdict="FLAG", reason="power was calculated by the emulator, not measured"),
)
_QUESTIONS = domain_lab.questions((14, 15, 18))


def _provenance() -> Provenance:
    """One node of four has other code: its release was not installed."""
    build = SoftwareBuild(version="0.2.0", code_sha256="1" * 64, packages_sha256="2" * 64, python="3.11.2")
    engine = EngineBuild(
        build="llama.cpp 0c1e570", ggml_commit="0c1e570", features=("NEON", "OPENMP"), openmp=True, repack=False,
        kleidiai=False, rpc=True, libraries_sha256="3" * 64,
    )  # fmt: skip
    asked = QuestionSet(
        task="demo_mmlu_2shot", docs_sha256="a" * 64, prompts_sha256="b" * 64, shots=2, available=264, asked=20,
        trust="first_use",
    )  # fmt: skip
    return Provenance(
        engine="llama.cpp", lm_eval_version="0.4.13", question_sets=(asked,),
        software={**dict.fromkeys(("n1", "n2", "n3"), build), "n4": build.model_copy(update={"code_sha256": "7" * 64})},
        engines=dict.fromkeys(("n1", "n2", "n3", "n4"), engine),
    )  # fmt: skip


@cache
def _measured(configuration: str, repetition: int):  # type: ignore[no-untyped-def]
    """A run measured on a synthetic trace and evaluated by the product's own code."""
    run = domain_lab.run_input(configuration, repetition, provenance=_provenance())
    samples = domain_lab.block(
        {f"n{i}": lambda t, i=i: domain_lab.load(t) + 0.2 * i + 0.1 * math.sin(9 * t + i) for i in (1, 2, 3, 4)},  # type: ignore[misc]
        16.0,  # type: ignore[misc]
    )
    return run, domain_lab.evaluate(run, samples, _QUESTIONS), samples
