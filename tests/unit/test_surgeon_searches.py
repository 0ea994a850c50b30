"""Searches as a registry: found by name, refused by what they need; jobs of before mean the same."""

from pathlib import Path

import pytest

from shared.checkpoints.base import CheckpointInfo
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import SurgeryPlan
from shared.wire.surgeon_jobs import SearchParams, SearchResult
from surgeon.search.base import SearchInputs
from surgeon.search.registry import SEARCHES, search_named
from surgeon.work.named import method_infos

MODEL = CheckpointInfo(
    format="gguf", architecture="qwen3moe", n_layers=4, n_experts=16, experts_per_token=4, size_bytes=1,
    quantization="F16",
)  # fmt: skip
PLAN = SurgeryPlan(n_experts=4, kept=((0, 1), (2, 3)))
ANY = Path("x")


def test_each_is_found_and_described() -> None:
    assert SEARCHES.names() == ("eep", "eep_merge", "naee")
    infos = {info.name: info for info in method_infos() if info.kind == "search"}
    assert infos["eep"].needs == ("questions",) and infos["eep"].optional == ("start",)
    assert [one.name for one in infos["naee"].parameters] == ["max_subsets"]
    assert all(info.source and info.formats == ("gguf",) for info in infos.values())


@pytest.mark.parametrize(
    ("search", "inputs", "says"),
    [
        ("naee", {"depth": 2}, "needs reservoir"),
        ("naee", {"statistics": ANY}, "needs a depth"),
        ("naee", {"depth": 2, "statistics": ANY, "questions": ((ANY, ""),)}, "takes no questions"),
        ("eep", {"depth": 2}, "needs questions"),
        ("eep", {"depth": 2, "questions": ((ANY, ""),), "plan": PLAN}, "takes no plan"),
        ("eep_merge", {"plan": PLAN, "questions": ((ANY, ""),), "depth": 2}, "has its plan's depth"),
        ("eep_merge", {"questions": ((ANY, ""),)}, "needs plan"),
    ],
)
def test_what_is_missing_or_not_looked_at_is_refused(search: str, inputs: dict[str, object], says: str) -> None:
    found = SearchInputs.model_validate({"model": ANY, **inputs})
    with pytest.raises(ConfigurationError, match=says):
        SEARCHES.get(search).check_inputs(found.given, has_depth=found.depth is not None)


def test_a_depth_that_leaves_too_few_is_refused_and_a_long_search_is_said() -> None:
    naee = search_named("naee")
    assert "all 120 subsets" in naee.check(MODEL, 2).words and not naee.check(MODEL, 2).is_long
    assert naee.check(MODEL, 8).is_long and "greedy" in search_named("naee", {"max_subsets": 9}).check(MODEL, 8).words
    with pytest.raises(ConfigurationError, match="dropping 13 of 16 experts leaves 3, but 4 are active"):
        naee.check(MODEL, 13)
    with pytest.raises(ConfigurationError, match="does not read dllama"):
        naee.check(MODEL.model_copy(update={"format": "dllama"}), 2)


def test_parameters_are_checked_by_name_and_value() -> None:
    with pytest.raises(ConfigurationError, match="subsets: Extra"):
        search_named("naee", {"subsets": 5})
    with pytest.raises(ConfigurationError, match="train_share"):
        search_named("eep", {"train_share": 1.5})
    with pytest.raises(ConfigurationError, match="unknown search 'genetic'"):
        search_named("genetic")


def test_a_job_of_before_is_the_same_job() -> None:
    """Searches had their parameters beside the method, each with its default written out."""
    former = {
        "model_sha256": "a" * 64, "method": "eep", "depth": 4, "plan": None, "start": [], "train_share": 0.5,
        "statistics_sha256": None, "max_subsets": 50_000, "questions": ["arc"], "iterations": 3, "offspring": 12,
        "seed": 0,
    }  # fmt: skip
    now = SearchParams(model_sha256="a" * 64, method="eep", depth=4, questions=("arc",), parameters={"iterations": 3})
    assert SearchParams.model_validate(former) == now
    merge = SearchParams.model_validate(former | {"method": "eep_merge", "depth": None, "plan": PLAN.model_dump()})
    assert merge.parameters == {"iterations": 3, "offspring": 12}, "what the merge phase was asked for, it still is"
    naee = SearchParams.model_validate(former | {"method": "naee", "questions": []})
    assert naee.parameters == {}


def test_a_result_of_before_is_read() -> None:
    former = {
        "plan": PLAN.model_dump(mode="json"), "plan_hash": PLAN.plan_hash(), "losses": [0.5], "exhaustive": True,
        "train_accuracy": None, "validation_accuracy": None, "validation_accuracy_of_base": None,
    }  # fmt: skip
    assert SearchResult.model_validate(former).report == {"losses": [0.5], "exhaustive": True}
