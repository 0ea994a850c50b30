"""A repetition far from the others in a campaign's files: barred in tables, report and on the run's page, file kept."""

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.api.models import RunStatus
from orchestrator.api.views import _detail, _results
from orchestrator.domain.run.records import RULES_VERSION, RunInput, WindowLoad
from orchestrator.reports.tables import results_table
from orchestrator.reports.validity import validity_lines
from orchestrator.results.files import write_campaign
from orchestrator.results.read_model import load_results
from orchestrator.results.recompute import recompute_campaign
from orchestrator.results.schema import CampaignFile
from shared.wire.node_jobs.load import MachineLoad, ProcessLoad
from tests.support.domain_lab import DEMO_RULES, PROTOCOL, T0, block, load, questions, run_input, write_measured

RULES = PROTOCOL.model_copy(update={"rules": DEMO_RULES.model_copy(update={"max_repetition_ratio": 1.5})})


def scaled(gain: float) -> Callable[[float], float]:
    return lambda t: 3 + (load(t) - 3) * gain


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three repetitions, the second of which took three times the energy."""
    first = run_input(protocol=RULES, rules_version=RULES_VERSION)
    write_campaign(
        tmp_path,
        CampaignFile(
            campaign_id="test", title="Far", model="demo-moe", hardware="4 emulated nodes", protocol=RULES,
            instrument=first.instrument, created_utc_ns=T0, repetitions=3, configurations=(first.configuration,),
        ),
    )  # fmt: skip
    for repetition, gain in ((1, 1.0), (2, 3.0), (3, 1.02)):
        power = {f"n{i}": scaled(gain) for i in range(1, 5)}
        run: RunInput = run_input("baseline", repetition, protocol=RULES, rules_version=RULES_VERSION)
        write_measured(tmp_path, run, block(power, 16, late_s=0.12), questions((9, 9, 9)))
    return tmp_path


def test_it_is_barred_everywhere_and_its_file_stays_as_it_was(tree: Path) -> None:
    data = load_results(tree)
    verdicts = [run.validity.verdict for run in data.runs["baseline"]]
    assert verdicts == ["FLAG", "FAIL", "FLAG"]
    assert data.results["baseline"].valid_repetitions == 2
    joules = [run.epi.joules_per_token for run in data.runs["baseline"]]
    assert joules[0] and data.results["baseline"].joules_per_token == pytest.approx(joules[0], rel=0.05)
    assert ("complete", "2 valid of 3 repetitions (3 measured)") in {(f.rule, f.reason) for f in data.validity.findings}

    assert any("2 of 3" in cell for row in results_table(data).rows for cell in row)
    assert any("times the J/token of the median of the repetitions" in line for line in validity_lines(data))

    status = RunStatus.model_validate({"configuration": "baseline", "repetition": 2, "state": "done", "attempts": ()})
    detail = _detail(tree, status)
    assert detail.validity is not None and detail.validity.verdict == "FAIL"
    assert detail.epi is not None and detail.epi["evaluation"]["validity"]["verdict"] == "FLAG"
    assert [one.validity for one in _results(tree)] == ["FLAG"]
    assert all(run.differences == () for run in recompute_campaign(tree))


def test_other_programs_are_one_line_a_window_with_the_worst_share_and_each_run_once(tree: Path) -> None:
    for repetition, cpu_s in ((1, 1.2), (3, 1.6)):
        load_of = {
            f"n{i}": MachineLoad(
                start_utc_ns=T0, end_utc_ns=T0 + 2 * 10**9, machine=f"m{i}", n_cpus=4, own=(),
                foreign=(ProcessLoad(pid=700 + i, start_ticks=1, name="backup", cpu_s=cpu_s),), foreign_cpu_s=cpu_s,
            )
            for i in range(1, 5)
        }  # fmt: skip
        loads = tuple(WindowLoad(label=label, nodes=load_of) for label in ("prefill", "decode"))
        run = run_input("baseline", repetition, protocol=RULES, rules_version=RULES_VERSION, window_loads=loads)
        write_measured(tree, run, block({f"n{i}": load for i in range(1, 5)}, 16, late_s=0.12), questions((9, 9, 9)))
    lines = [line for line in validity_lines(load_results(tree)) if "foreign_load" in line]
    assert lines == [
        f"- FLAG foreign_load ({label}): other programs used up to 0.80 of a core, mostly backup:"
        " baseline/rep-1, baseline/rep-3"
        for label in ("prefill", "decode")
    ]
