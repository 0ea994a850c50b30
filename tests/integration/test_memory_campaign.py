"""Memory limits planted on a real lab's nodes: what fits to the byte is loaded, what is one byte over is refused."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.domain.run.records import NodeMemoryUse
from shared.kernel.errors import ConfigurationError
from shared.kernel.progress import no_progress
from shared.wire.footprint import Footprint, ServingShape, VariantShape
from surgeon.work.child import run_in_child
from surgeon.work.tasks import FootprintTask
from tests.support.lab import DEMO, TestLab, api_of, new_lab, short_spec, small_demo, start_campaign, wait_for_end

WHOLE = {"baseline.on-big": "baseline.on-big"}
TOTAL = psutil.virtual_memory().total
KEPT = 8  # of 16


def calculated() -> Footprint:
    """Return what half of the demo model's experts take on one node."""
    task = FootprintTask(
        source=DEMO.parent / "model", quantization="Q4_K_M",
        items=((VariantShape(kept=(KEPT,) * 4), ServingShape(memory=(TOTAL,), context_tokens=8192, sequences=32)),),
    )  # fmt: skip
    (answer,) = asyncio.run(run_in_child(task, no_progress)).footprints
    assert answer.footprint is not None, answer.problem
    return answer.footprint


@pytest.fixture(scope="module")
def lab() -> Iterator[TestLab]:
    """Give a lab whose node1 can hold half of the experts to the byte, and whose node2 lacks one byte for it."""
    need = calculated().needed[0]
    with new_lab() as made:
        try:
            reserved = {"node1": TOTAL - need, "node2": TOTAL - need + 1}
            made.start(small_demo(made.home, reserved_memory_bytes=reserved))
            yield made
        finally:
            made.stop()


def spec_of(identity: str, configurations: str, **changes: object) -> CampaignSpec:
    spec = short_spec(identity, "baseline").model_dump(exclude_none=True) | {
        "schema_version": 2, "configurations": configurations,
        "references": {**WHOLE, "drop8_all.on-first": "baseline.on-big"},
        "node_sets": {"first": ["node1"], "second": ["node2"], "big": ["node3", "node4"]},
    }  # fmt: skip
    return CampaignSpec.model_validate(spec | changes)


def validated(lab: TestLab, spec: CampaignSpec) -> dict[str, Any]:
    answer: dict[str, Any] = api_of(lab).call("POST", "/v1/specs/validate", spec.model_dump(mode="json"))
    return answer


def test_one_byte_too_few_is_refused_before_any_work(lab: TestLab) -> None:
    second = {"references": {**WHOLE, "drop8_all.on-second": "baseline.on-big"}}
    with pytest.raises(ConfigurationError) as refused:
        start_campaign(lab, spec_of("over", "baseline.on-big,drop8_all.on-second", **second))
    said = f"{refused.value.message} {refused.value.where} {refused.value.hint}"
    assert "configurations: drop8_all.on-second" in said and "(1 bytes too few)" in said and "node2" in said
    assert "fewest" in said and "skip_impossible" in said
    left = validated(lab, spec_of("over", "baseline.on-big,drop8_all.on-second", skip_impossible=True, **second))
    assert left["configurations"] == ["baseline.on-big"]


def test_fewest_is_answered_from_the_nodes_memory(lab: TestLab) -> None:
    found = validated(lab, spec_of("few", "baseline.on-big,drop8_all.on-first"))
    fits = {one["configuration"]: one for one in found["memory"]}
    assert [node["node"] for node in fits["drop8_all.on-first"]["nodes"]] == ["node1"]
    first = fits["drop8_all.on-first"]["nodes"][0]
    assert first["needed"] == first["usable"] and not first["bytes"]["weights"]["experts"] % 32
    with pytest.raises(ConfigurationError, match="fit"):  # the whole model fits on no first nodes of this lab
        validated(lab, spec_of("few", "baseline", nodes="fewest", references={}))


@pytest.mark.timeout(300)
def test_what_fits_to_the_byte_is_loaded_and_measured_beside_what_was_calculated(lab: TestLab) -> None:
    start_campaign(lab, spec_of("exact", "baseline.on-big,drop8_all.on-first"))
    status = wait_for_end(lab, "exact")
    assert status["state"] == "finished", status["reason"]
    run = json.loads((lab.out / "exact" / "drop8_all.on-first" / "run_001.json").read_text())
    use = NodeMemoryUse.model_validate(run["memory"]["node1"])
    assert use.calculated is not None and use.reported is not None and use.worker_peak_rss_bytes is not None
    assert use.reported.total * 0.999 <= use.calculated.bytes.buffers <= use.reported.total * 1.03
    assert use.worker_peak_rss_bytes < use.calculated.needed == use.calculated.usable
    assert run["facts_before"][0]["reserved_memory_bytes"] == TOTAL - use.calculated.usable
    head = json.loads((lab.out / "exact" / "campaign.json").read_text())
    assert [node["node"] for node in head["memory"]["baseline.on-big"]["nodes"]] == ["node3", "node4"]
    assert Path(lab.out / "exact" / "report.md").exists()
