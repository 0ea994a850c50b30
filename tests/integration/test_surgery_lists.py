"""Variants of any surgeries in order, by the campaign's own code and a real surgeon: checked, decided, done, proved."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.campaign.admission import held_against
from orchestrator.campaign.calls import Caller
from orchestrator.campaign.context import CampaignContext
from orchestrator.campaign.lab import Lab
from orchestrator.campaign.pins import SurgeonPins
from orchestrator.campaign.plans import needs_of_searches
from orchestrator.campaign.preparation import Base, prepare_variant
from orchestrator.campaign.variant_admission import refused_by_surgeon
from orchestrator.domain.campaign.schedule import configurations_of
from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.settings import OrchestratorSettings
from orchestrator.store.journal import open_journal
from shared.kernel.settings import AgentAddress
from shared.service.health import HealthRegistry
from shared.wire.surgeon_jobs import ObserveParams, ObserveResult, PrepareParams, PrepareResult
from tests.integration.test_extending import install_documented
from tests.support.checkpoint_factory import TEXT, make_checkpoint
from tests.support.daemons import make_daemon

DROP: dict[str, Any] = {"kind": "drop_layers", "count": 1}
PRUNE: dict[str, Any] = {"kind": "prune_experts", "drop": "25%", "method": "reap"}
Q8: dict[str, Any] = {"kind": "quantize", "quantization": "Q8_0"}


def spec(**variants: Any) -> CampaignSpec:
    return CampaignSpec.model_validate({
        "schema_version": 2, "id": "lists", "model": "tiny", "corpus": "facts", "quantization": "Q8_0",
        "max_perplexity_ratio": 1e6, "configurations": ",".join(["baseline", *variants]), "variants": variants,
        "accuracy": {"tasks": [{"task": "arc_challenge"}], "where": "cluster"},
    })  # fmt: skip


@asynccontextmanager
async def lab_with(folder: Path) -> AsyncIterator[Lab]:
    """Give a lab of which only the surgeon is there, with one small model."""
    make_checkpoint(folder / "model", n_layers=4, n_experts=12, experts_per_token=3)
    (folder / "facts.txt").write_text(TEXT)
    models, corpora = {"tiny": str(folder / "model")}, {"facts": [str(folder / "facts.txt")]}
    daemon = make_daemon("surgeon", folder / "surgeon", models=models, corpora=corpora, window_tokens=128)
    daemon.start()
    away = AgentAddress(name="node1", url="http://127.0.0.1:9")
    address = AgentAddress(
        name="surgeon", url=f"http://127.0.0.1:{daemon.port}", token_file=folder / "surgeon" / "token"
    )
    lab = Lab(OrchestratorSettings(
        name="orchestrator", port=1, state_dir=folder, results_dir=folder, nodes=(away,), surgeon=address, meter=away,
        workload_prompts=folder / "none",
    ))  # fmt: skip
    try:
        yield lab
    finally:
        await lab.close()
        daemon.end()


async def no_recovery(_agent: str) -> None:
    raise AssertionError("nobody is away")


async def ended(_campaign: str) -> bool:
    return False


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kind of surgery of docs/extending.md, installed for every process that the test starts."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    install_documented("A kind of surgery", folder)


async def test_surgeries_of_any_kind_are_checked_decided_done_and_proved(tmp_path: Path, packages: None) -> None:
    right = spec(
        shorter={"surgeries": [DROP]},
        cut={"base": "f16", "surgeries": [DROP, PRUNE, PRUNE, Q8]},
        told={"surgeries": [PRUNE, {"kind": "experts_per_token", "k": 2}]},
    )
    async with lab_with(tmp_path) as lab, open_journal(tmp_path / "journal.sqlite") as journal:
        admitted = held_against(right, await lab.catalogue(), ["node1"])
        assert await refused_by_surgeon(admitted, lab) == {}
        await journal.create(admitted)
        await journal.set_state("lists", "running")
        context = CampaignContext(
            admitted, lab, Caller(journal, "lists", 3, no_recovery, lambda *_: None), HealthRegistry()
        )
        prepare = PrepareParams(model="tiny", quantization="Q8_0")
        model = PrepareResult.model_validate(await lab.surgeon.run("t/p", "prepare", prepare, timeout_s=60))
        observe = ObserveParams(model_sha256=model.f16_sha256, corpus="facts")
        seen = ObserveResult.model_validate(await lab.surgeon.run("t/o", "observe", observe, timeout_s=60))
        base = Base(model, seen, {}, search_needs=await needs_of_searches(context))
        pins = SurgeonPins(context, ended)
        ids = {one.id: one for one in configurations_of(admitted)}
        made = {
            name: await prepare_variant(context, {"Q8_0": base}, pins, ids[name]) for name in ("shorter", "cut", "told")
        }

        shorter, cut, told = made["shorter"], made["cut"], made["told"]
        assert shorter.surgeries is not None and cut.surgeries is not None and told.surgeries is not None
        assert shorter.surgeries.brought_by == {"drop_layers": "drop_layers_kind 1.0"}
        assert shorter.plan is None and shorter.scored.request.plan is None, "no node can make it"
        assert [one.sha256 for one in shorter.scored.requests] == [shorter.scored.request.sha256]
        assert [one.kind for one in cut.surgeries.surgeries] == ["drop_layers", "plan", "plan", "quantize"]
        first, second = (one.model_dump()["plan"] for one in cut.surgeries.surgeries[1:3])
        assert (len(first["kept"]), first["n_experts"], second["n_experts"]) == (3, 12, 9)
        assert {len(row) for row in second["kept"]} == {6}, "25 % of the model's own 12, twice"
        assert first["statistics_sha256"] not in (second["statistics_sha256"], seen.statistics_sha256)
        assert cut.scored.base.sha256 == model.f16_sha256 and cut.surgeries.proved_bytes > cut.scored.request.size_bytes
        assert told.plan is not None and told.plan.plan.experts_per_token == 2
        assert told.scored.request.plan == told.plan.plan, "a list that is one plan is a plan, which nodes apply too"

        entries = await journal.entries(0)
        again = await prepare_variant(context, {"Q8_0": base}, pins, ids["cut"])
        assert again == cut and await journal.entries(0) == entries, "all of it is known from the journal"


async def test_what_cannot_be_done_is_refused_before_any_job(tmp_path: Path, packages: None) -> None:
    wrong = {
        "unknown": ({"surgeries": [{"kind": "lobotomy"}]}, "surgery 1.*unknown kind of surgery 'lobotomy'"),
        "value": ({"surgeries": [DROP | {"count": 0}]}, "surgery 1.*count"),
        "many": ({"surgeries": [PRUNE, DROP | {"count": 4}]}, "surgery 2.*4 of 4 layers cannot be dropped"),
        "quantised": ({"surgeries": [DROP, Q8]}, "surgery 2.*Q8_0 already"),
        "left": ({"base": "f16", "surgeries": [DROP]}, "leave F16, the configuration is Q8_0: end with quantize"),
        "biased": ({"surgeries": [PRUNE | {"layers": "late"}, PRUNE]}, "surgery 2.*biased"),
        "few": ({"surgeries": [PRUNE | {"drop": 6}, PRUNE | {"drop": 5}]}, "surgery 2.*active"),
        "subsets": ({"experts": {"search": "naee", "drop": 2, "max_subsets": 0}}, "surgery 1.*max_subsets"),
        "prior": ({"experts": {"drop": 2, "method": "random", "parameters": {"seed": "x"}}}, "surgery 1.*seed"),
    }
    async with lab_with(tmp_path) as lab:
        admitted = held_against(
            spec(**{name: table for name, (table, _) in wrong.items()}), await lab.catalogue(), ["node1"]
        )
        refused = await refused_by_surgeon(admitted, lab)
        for name, (_, says) in wrong.items():
            assert re.search(says, refused[name], re.DOTALL), (name, refused[name])
        assert await lab.surgeon.request("GET", "/v1/jobs") == []
