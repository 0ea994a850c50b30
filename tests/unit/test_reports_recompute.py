"""An independent script of a few lines gets the same EPI from the written files, and so does our own reader."""

import csv
import json
import shutil
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator.reports.summary import write_summary
from orchestrator.results.files import json_bytes, read_json, write_campaign
from orchestrator.results.recompute import recompute_campaign, write_recomputed
from orchestrator.results.schema import CampaignFile, EpiFile
from shared.kernel.errors import DataError
from tests.support.domain_lab import PROTOCOL, T0, block, configuration, load, questions, run_input, write_measured


def independent_epi(folder: Path, number: str) -> float:
    """Nothing of EPI Factory in here: CSV, JSON and the definition EPI = (E / T) / A."""
    document = json.loads((folder / f"epi_{number}.json").read_text())
    traces: dict[str, list[tuple[int, float]]] = {}
    with (folder / f"power_trace_{number}.csv").open() as file:
        for row in csv.DictReader(file):
            whole, fraction = row["timestamp"].rstrip("Z").split(".")
            ns = int(datetime.fromisoformat(whole + "+00:00").timestamp()) * 10**9 + int(fraction)
            traces.setdefault(row["node"], []).append((ns, float(row["watts"])))
    energy, tokens = 0.0, 0
    for window in document["evaluation"]["windows"]:
        if window["label"] != "decode":
            continue
        start, end = window["start_utc_ns"], window["end_utc_ns"]
        tokens += window["ledger"]["generated"]
        for trace in traces.values():
            for (t0, p0), (t1, p1) in pairwise(trace):
                a, b = max(t0, start), min(t1, end)
                if a < b:
                    middle = ((a - t0) + (b - t0)) / 2 / (t1 - t0)
                    energy += (p0 + (p1 - p0) * middle) * (b - a) * 1e-9
    answers: dict[str, list[bool]] = {}
    for question in json.loads((folder / f"benchmark_{number}.json").read_text())["questions"]:
        answers.setdefault(question["task"], []).append(question["correct"])
    accuracy = sum(sum(marks) / len(marks) for marks in answers.values()) / len(answers)
    return energy / tokens / accuracy


def write_tree(root: Path) -> Path:
    campaign = CampaignFile(
        campaign_id="test", model="demo-moe", hardware="4 emulated nodes", instrument=run_input().instrument,
        created_utc_ns=T0, repetitions=2, protocol=PROTOCOL,
        configurations=tuple(map(configuration, ("baseline", "drop4_all", "baseline_biased", "drop4_late"))),
        failures={"drop4_late": "validation refused it"},
    )  # fmt: skip
    write_campaign(root, campaign)
    for name, factor, right in (("baseline", 1.0, (16, 15, 14)), ("drop4_all", 0.8, (14, 13, 15))):
        for repetition in (1, 2):
            gain = factor * (1 + 0.003 * repetition)
            power = {
                f"n{i}": (lambda t, g=gain, i=i: 3 + (load(t) - 3) * g * (1 + 0.1 * i) + 0.037 * (t % 0.7))
                for i in range(4)
            }
            samples = block(power, 16, late_s=0.1234567)
            run, answers = run_input(name, repetition), questions(right)
            write_measured(root, run, samples, answers)
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("campaign"))


@pytest.mark.parametrize("name", ["baseline", "drop4_all"])
def test_epi_recomputed_independently(tree: Path, name: str) -> None:
    for number in ("001", "002"):
        written = json.loads((tree / name / f"epi_{number}.json").read_text())
        assert independent_epi(tree / name, number) == pytest.approx(written["epi"]["value"], rel=1e-9)


def test_epi_recomputed_by_our_reader_is_identical(tree: Path) -> None:
    for run in recompute_campaign(tree):
        assert run.written is not None and not run.differences
        assert json_bytes(run.again) == json_bytes(run.written)


def test_the_published_schema_is_there(tree: Path) -> None:
    document = json.loads((tree / "baseline" / "epi_001.json").read_text())
    expected = {
        "environment": {"ambient_temp_c", "ambient_humidity_percent", "frequency_governor", "background_load"},
        "energy": {
            "total_joules", "total_tokens", "joules_per_token", "avg_watts_cluster", "peak_watts_cluster",
            "duration_seconds", "kwh_total",
        },
        "accuracy": {"mmlu_5shot", "arc_challenge_25shot", "hellaswag_10shot", "composite"},
        "epi": {"value", "joules_per_token", "accuracy_composite"},
        "run_metadata": {"run_id", "timestamp_utc", "repetition", "epi_meter_firmware", "distributed_llama_version"},
    }  # fmt: skip
    for name, fields in expected.items():
        assert set(document[name]) == fields
    for name in ("model", "quantization", "surgery", "hardware", "instrument", "measurement_point", "token_basis"):
        assert isinstance(document[name], str)
    assert document["environment"]["ambient_temp_c"] is None, "unknown is null"
    assert document["energy"]["joules_per_token"] == pytest.approx(
        document["energy"]["total_joules"] / document["energy"]["total_tokens"], rel=1e-12
    )


@pytest.mark.parametrize(
    ("block", "name", "value"),
    [
        ("energy", "joules_per_token", 1e-9), ("accuracy", "composite", 1.0), ("epi", "value", None),
        ("run_metadata", "repetition", 7), ("evaluation", "configuration_id", "drop8_all"),
    ],
)  # fmt: skip
def test_a_block_that_does_not_follow_from_the_evaluation_is_refused(
    tree: Path, tmp_path: Path, block: str, name: str, value: object
) -> None:
    document = json.loads((tree / "baseline" / "epi_001.json").read_text())
    assert document[block][name] != value
    document[block][name] = value
    path = tmp_path / "epi_001.json"
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=f"{name if block != 'evaluation' else 'surgery'} does not follow"):
        read_json(EpiFile, path)


def test_a_damaged_result_is_a_difference_and_is_written_anew(tree: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(tree, tmp_path / "tree"))
    sound = (root / "baseline" / "epi_001.json").read_bytes()
    (root / "baseline" / "epi_001.json").write_bytes(sound[:100])
    first = next(iter(recompute_campaign(root)))
    assert first.written is None and "no result" in first.differences[0]
    write_recomputed(root, first)
    assert (root / "baseline" / "epi_001.json").read_bytes() == sound


def test_the_summary_is_deterministic_and_says_what_is_missing(tree: Path) -> None:
    first = {path.name: path.read_bytes() for path in write_summary(tree)}
    again = {path.name: path.read_bytes() for path in write_summary(tree)}
    assert first == again
    assert set(first) == {"summary.md", "epi_curve.svg", "epi_curve.png"}
    text = first["summary.md"].decode()
    assert "emulated" in text and "| drop4_all | 2 |" in text and "drop4_late: validation refused it" in text
    assert not list(tree.rglob(".*")), "no temporary file is left"
