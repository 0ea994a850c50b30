"""`epi results calc|validate|report|figures` and `epi plan` on a written tree, sound and damaged."""

import json
import shutil
import tomllib
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner

from orchestrator.campaign.spec_library import EXAMPLES
from orchestrator.cli.plan import app as plan_app
from orchestrator.cli.results import app as results_app
from orchestrator.results.json_schemas import MODELS, schema_of
from orchestrator.results.validate import validate_submission
from shared.files.atomic import write_file
from tests.support.epi_campaign import write_campaign_tree

run = CliRunner()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    return write_campaign_tree(root, "drop2_all,drop4_late,drop6_late", repetitions=2, per_task=40, saving=0.05)


@pytest.fixture
def copy(tree: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tree, tmp_path / "copy"))


def edit(path: Path, **changes: object) -> None:
    document = json.loads(path.read_text())
    for name, value in changes.items():
        inner, *rest = name.split("__")
        if rest:
            document[inner][rest[0]] = value
        else:
            document[inner] = value
    write_file(path, json.dumps(document))


def test_calc_agrees_with_what_was_written_and_notices_a_change(copy: Path) -> None:
    sound = run.invoke(results_app, ["calc", str(copy), "--json"])
    assert sound.exit_code == 0, sound.output
    assert all(not row["differences"] for row in json.loads(sound.stdout)["runs"])
    path = copy / "baseline" / "epi_001.json"
    value = json.loads(path.read_text())["epi"]["value"]
    edit(path, epi__value=value * (1 + 1e-7))
    assert run.invoke(results_app, ["calc", str(copy)]).exit_code == 1
    assert run.invoke(results_app, ["calc", str(copy), "--write"]).exit_code == 0
    assert json.loads(path.read_text())["epi"]["value"] == value


def test_calc_needs_no_epi_file(copy: Path) -> None:
    (copy / "baseline" / "epi_001.json").unlink()
    assert run.invoke(results_app, ["calc", str(copy), "--write"]).exit_code == 0
    assert (copy / "baseline" / "epi_001.json").exists()


def test_validate_accepts_a_sound_tree_with_its_flags(tree: Path) -> None:
    result = run.invoke(results_app, ["validate", str(tree), "--json"])
    assert result.exit_code == 0, result.output
    kinds = {defect["what"].split(":")[0] for defect in json.loads(result.stdout)["defects"]}
    assert {"emulated", "shortened"} <= kinds


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("epi_001.json", {"energy__joules_per_token": 1.0}, "total_joules / total_tokens"),
        ("epi_001.json", {"accuracy__composite": 78.3}, "fractions, not percent"),
        ("epi_001.json", {"model": None}, "model"),
        ("run_001.json", {"repetition": 7}, "repetition 7"),
        ("run_001.json", {"windows": []}, "epi.value"),
        ("benchmark_001.json", {"questions": "none"}, "questions"),
    ],
)
def test_validate_explains_each_defect(copy: Path, name: str, changes: dict[str, object], expected: str) -> None:
    edit(copy / "drop2_all" / name, **changes)
    defects = [defect for defect in validate_submission(copy) if defect.severity == "FAIL"]
    text = " | ".join(f"{defect.where} {defect.what} {defect.cure}" for defect in defects)
    assert defects and expected in text, text


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("timestamp,node,watts", "time,node,w", "first line"),
        ("Z,n1,", " ,n1,", "timestamp"),
        (",n1,", ",n1,x", "not a number"),
        (",n1,", ",n1,-", "negative"),
    ],
)
def test_validate_reads_hostile_traces(copy: Path, old: str, new: str, expected: str) -> None:
    path = copy / "drop2_all" / "power_trace_001.csv"
    path.write_text(path.read_text().replace(old, new))
    text = " | ".join(f"{d.where} {d.what} {d.cure}" for d in validate_submission(copy) if d.severity == "FAIL")
    assert expected in text, text


def test_validate_of_nothing_and_of_half_a_run(tmp_path: Path, copy: Path) -> None:
    assert validate_submission(tmp_path / "none")[0].severity == "FAIL"
    (copy / "drop2_all" / "run_002.json").unlink()
    (copy / "drop4_late" / "power_trace_001.csv").unlink()
    text = " | ".join(f"{d.where} {d.what}" for d in validate_submission(copy))
    assert "run_002.json the file is missing" in text and "power_trace_001.csv" in text


def test_report_is_self_contained_and_deterministic(copy: Path) -> None:
    assert run.invoke(results_app, ["report", str(copy)]).exit_code == 0
    first = {path.relative_to(copy): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert run.invoke(results_app, ["report", str(copy)]).exit_code == 0
    assert first == {path.relative_to(copy): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    html = first[Path("report.html")].decode()
    assert "emulated" in html and html.count("<figure") >= 5 and html.count("<svg") == html.count("<figure")
    for outside in ('src="http', 'href="http', "url(http", "<script", "@import"):
        assert outside not in html
    for kind in ("svg", "pdf", "png"):
        assert Path(f"figures/epi_curve.{kind}") in first
    captions = [data.decode() for path, data in first.items() if path.suffix == ".txt"]
    assert len(captions) >= 5 and all("n = " in caption for caption in captions)
    text = first[Path("report.md")].decode()
    for name in ("H1", "H2", "H3", "H4", "RQ1", "RQ2", "RQ3", "RQ4", "RQ5"):
        assert f"**{name}" in text


def test_figures_alone(copy: Path) -> None:
    assert run.invoke(results_app, ["figures", str(copy)]).exit_code == 0
    assert (copy / "figures" / "pareto.pdf").read_bytes().startswith(b"%PDF")


def test_plan_from_a_campaign(tree: Path) -> None:
    options = ["--reps", "3", "--questions", "400", "--target", "0.05", "--json"]
    result = run.invoke(plan_app, ["--from", str(tree), *options])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["plan"]["runs"] == 78
    per_question = 4.0 / 120  # the score window of 4 s holds 120 questions
    assert document["plan"]["run_seconds"] == pytest.approx(14 - 4 + 1200 * per_question, rel=1e-6)
    assert document["proposal"]["power"] >= 0.8
    assert run.invoke(plan_app, ["--from", str(tree)]).exit_code == 0


def test_plan_without_rates_says_what_to_give() -> None:
    result = run.invoke(plan_app, [])
    assert result.exit_code == 0
    example = next(line for line in result.output.splitlines() if "--rates four-pi5 " in line).split()
    assert run.invoke(plan_app, example[2:4]).exit_code == 0, "the example works"


@pytest.mark.parametrize("name", list(MODELS))
def test_documented_schemas_are_current_and_hold_for_written_files(tree: Path, name: str) -> None:
    documented = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / f"{name}.schema.json").read_text())
    assert documented == schema_of(name), "run: epi results validate ANY_DIR --schemas docs/schemas"
    if name == "spec":
        for example in EXAMPLES.glob("*.toml"):
            jsonschema.validate(tomllib.loads(example.read_text()), documented)
        return
    path = tree / "campaign.json" if name == "campaign" else tree / "drop4_late" / f"{name}_001.json"
    jsonschema.validate(json.loads(path.read_text()), documented)
