"""Whatever a stranger sends, `epi results validate` answers with defects and never with a traceback."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.results.read_model import load_results
from orchestrator.results.validate import validate_submission
from shared.kernel.errors import DataError
from tests.support.epi_campaign import write_campaign_tree

HOSTILE = (None, -1, 0, 10**30, 1e308, "", "x" * 300, [], {}, [[]], True, "../../etc/passwd", "\u0000", -(10**19))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_campaign_tree(tmp_path_factory.mktemp("sound"), "drop1_all", repetitions=1, per_task=10)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a JSON document, at most two items of each list."""
    found = [path] if path else []
    if isinstance(value, dict):
        found += [place for key, inner in value.items() for place in places(inner, (*path, key))]
    elif isinstance(value, list):
        found += [place for i, inner in enumerate(value[:2]) for place in places(inner, (*path, i))]
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_json_never_crashes_the_judge(
    tree: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = Path(shutil.copytree(tree, tmp_path_factory.mktemp("mutated") / "tree"))
    name = data.draw(st.sampled_from(["campaign.json", "drop1_all/run_001.json", "drop1_all/epi_001.json",
                                      "drop1_all/benchmark_001.json"]))  # fmt: skip
    document = json.loads((root / name).read_text())
    place = data.draw(st.sampled_from(places(document)))
    target = document
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = data.draw(st.sampled_from(HOSTILE))
    (root / name).write_text(json.dumps(document))
    assert isinstance(validate_submission(root), tuple)
    shutil.rmtree(root)


HUGE = b'{"energy": {"total_joules": 1' + b"0" * 400 + b"}}"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"null", b"[" * 100_000, b'{"a": NaN}', b"\x00" * 1000, HUGE])
@pytest.mark.parametrize("name", ["run_001.json", "epi_001.json", "benchmark_001.json", "power_trace_001.csv"])
def test_rubbish_in_any_file_is_a_defect(tree: Path, tmp_path: Path, name: str, content: bytes) -> None:
    root = Path(shutil.copytree(tree, tmp_path / "tree"))
    (root / "drop1_all" / name).write_bytes(content)
    assert any(defect.severity == "FAIL" and name in defect.where for defect in validate_submission(root))


def test_a_serving_that_makes_no_id_is_a_defect(tree: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(tree, tmp_path / "tree"))
    path = root / "drop1_all" / "run_001.json"
    document = json.loads(path.read_text())
    document["configuration"]["serving"] = "x" * 49  # `baseline_biased.` and this would be an id of 65 characters
    path.write_text(json.dumps(document))
    assert any("configuration.serving" in defect.where for defect in validate_submission(root))


def test_runs_in_a_folder_that_is_no_configuration_are_named(tree: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(tree, tmp_path / "tree"))
    (root / "drop1_all").rename(root / "Drop 1")
    assert any(d.severity == "FAIL" and "configuration" in d.what for d in validate_submission(root))
    with pytest.raises(DataError, match="configuration"):
        load_results(root)
