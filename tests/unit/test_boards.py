"""What freed boards save, off and idle, and pruning against fewer bits at the same bytes: through files and tables."""

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.domain.campaign.fit import ConfigurationFit
from orchestrator.domain.run.records import Provenance, ServedBy
from orchestrator.reports.memory_tables import boards_table, iso_memory_table, memory_table
from orchestrator.results.files import read_json, write_campaign
from orchestrator.results.read_model import load_results
from orchestrator.results.schema import CampaignFile
from tests.support.domain_lab import block, load, run_input, write_measured
from tests.support.epi_campaign import answers, write_campaign_tree

IDLE_W = 3.0


def power(watts: float) -> Callable[[float], float]:
    return lambda t: IDLE_W + (load(t) - 3) * watts


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_campaign_tree(
        tmp_path_factory.mktemp("boards") / "synthetic", "baseline.q3_k_s,drop4_all", repetitions=2, per_task=40
    )
    head = read_json(CampaignFile, root / "campaign.json")
    sizes = {"baseline": 1000, "baseline.q3_k_s": 700, "drop4_all": 760}
    fits = {name: ConfigurationFit(configuration=name, file_bytes=size) for name, size in sizes.items()}
    write_campaign(root, head.model_copy(update={"memory": fits}))
    return root


def test_pruning_is_held_against_the_unpruned_file_of_about_its_bytes(campaign: Path) -> None:
    data = load_results(campaign)
    (pair,) = data.iso_memory
    assert (pair.pruned, pair.unpruned) == ("drop4_all", "baseline.q3_k_s")
    assert pair.interval is not None and pair.log_epi_ratio is not None
    assert pair.interval[0] < pair.log_epi_ratio < pair.interval[1]
    assert pair.log_epi_ratio > 0  # planted: the same joules, and pruning lost accuracy
    table = iso_memory_table(data)
    assert table is not None and table.rows[0][2] == "baseline.q3_k_s"
    assert memory_table(data) is None and boards_table(data) is None


def test_bytes_further_apart_are_no_pair(campaign: Path, tmp_path: Path) -> None:
    head = read_json(CampaignFile, campaign / "campaign.json")
    fits = {**head.memory, "drop4_all": ConfigurationFit(configuration="drop4_all", file_bytes=900)}
    write_campaign(campaign, head.model_copy(update={"memory": fits}))
    data = load_results(campaign)
    assert data.iso_memory[0].unpruned is None and iso_memory_table(data) is None
    write_campaign(campaign, head)


def test_freed_boards_are_told_off_and_idle(tmp_path: Path) -> None:
    root = write_campaign_tree(tmp_path / "synthetic", "baseline.n1", repetitions=1, per_task=20)
    nodes = {"baseline": ("n1", "n2", "n3", "n4"), "baseline.n1": ("n1",)}
    for name, used in nodes.items():
        run = run_input(name, 1)
        served = ServedBy(engine="llama.cpp", engine_build="b", model_sha256="0" * 64, nodes=used)
        changes = {"provenance": Provenance(windows={"decode": served}), "nodes": used}
        run = run.model_copy(update=changes)
        samples = block({f"n{i}": power(1.0 if i == 1 else 0.5) for i in range(1, 5)}, 16, late_s=0.12)
        write_measured(root, run, samples, answers(run.configuration, 20))
    assert boards_table(load_results(root)) is None  # as an earlier version wrote it
    head = read_json(CampaignFile, root / "campaign.json")
    write_campaign(root, head.model_copy(update={"memory": {"baseline": ConfigurationFit(configuration="baseline")}}))
    data = load_results(root)
    (saving,) = data.board_savings
    one = data.runs["baseline.n1"][0]
    assert saving.use.freed == ("n2", "n3", "n4") and saving.reference.freed == ()
    assert saving.use.freed_idle_watts == pytest.approx(3 * IDLE_W, rel=0.01)
    assert one.headline is not None and one.total_tokens
    seconds = one.headline.duration_seconds / one.total_tokens
    assert saving.use.joules_per_token is not None and saving.use.joules_per_token_idle is not None
    assert saving.use.freed_idle_watts is not None
    extra = saving.use.joules_per_token_idle - saving.use.joules_per_token
    assert extra == pytest.approx(saving.use.freed_idle_watts * seconds)
    assert saving.joules_off is not None and saving.joules_idle is not None
    assert saving.joules_off < saving.joules_idle < 1
    table = boards_table(data)
    assert table is not None and table.rows[0][1] == "1" and table.rows[0][3] == "4"
