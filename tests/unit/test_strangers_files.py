"""Files that a stranger made: links out of the tree, devices, pipes, sparse giants. Nothing hangs, nothing is read."""

import gzip
import json
import os
import re
import resource
import shutil
import signal
import sqlite3
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from meter_bridge.cli.calibrate import read_points
from meter_bridge.settings import BridgeSettings
from meter_bridge.trace.recording import read_head, read_recording
from node_agent.engines.dllama_files import DllamaTokenizer
from orchestrator.benchmarks.data_dir import read_folder
from orchestrator.benchmarks.local_data import read_docs
from orchestrator.benchmarks.published import PUBLISHED
from orchestrator.benchmarks.task_files import TaskFiles
from orchestrator.campaign.demo_spec import demo_spec
from orchestrator.campaign.lab import load_prompts as workload_prompts
from orchestrator.campaign.spec_file import load_spec
from orchestrator.cli.results import app as results_app
from orchestrator.reports.report import write_report
from orchestrator.results.files import read_traces
from orchestrator.results.validate import validate_submission
from shared.checkpoints import surgery
from shared.checkpoints.dllama import read_header
from shared.checkpoints.dllama_tokenizer import parse as parse_tokenizer
from shared.files.durability import hash_file
from shared.files.trace_csv import read_columns
from shared.kernel.errors import ConfigurationError, DataError, EpiError
from shared.kernel.regular_files import MIB, read_bytes
from shared.kernel.settings import load_settings
from shared.llama.model import Model
from surgeon.cli.files import app as surgery_app
from surgeon.conversion.to_gguf import convert
from surgeon.observation.corpus import load_corpus
from surgeon.observation.statistics import load as load_statistics
from surgeon.planning.plan_file import read_plan, read_surgeries
from surgeon.quality.sanity import load_prompts as sanity_prompts
from surgeon.search.multiple_choice import load_questions
from tests.support.checkpoint_factory import make_checkpoint
from tests.support.epi_campaign import write_campaign_tree

ROOT = Path(__file__).parents[2]
run = CliRunner()


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """A reader that waits, or reads without end, fails instead of taking the machine with it."""

    def too_long(*_: object) -> None:
        raise TimeoutError("a reader waits for ever")

    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 1024 * MIB, hard))
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(20)
    yield
    signal.alarm(0)
    resource.setrlimit(resource.RLIMIT_AS, (before, hard))


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def giant(path: Path, start: bytes = b"") -> None:
    """Make a file of 6 GB that takes no room."""
    path.write_bytes(start)
    os.truncate(path, 6 << 30)


READERS: dict[str, Callable[[Path], object]] = {
    "settings.toml": lambda path: load_settings(BridgeSettings, path),
    "spec.toml": load_spec,
    "spec.json": load_spec,
    "demo.toml": lambda path: demo_spec(path, campaign_id="x", configurations="all", repetitions=1, questions=1),
    "workload.txt": lambda path: workload_prompts(path, 1),
    "plan.json": read_plan,
    "surgeries.json": read_surgeries,
    "questions.jsonl": read_docs,
    "mmlu/test.csv": lambda path: read_folder(path.parent, PUBLISHED["mmlu"]),
    "mmlu/test.parquet": lambda path: read_folder(path.parent, PUBLISHED["mmlu"]),
    "quiz.jsonl": load_questions,
    "sanity.jsonl": sanity_prompts,
    "corpus.txt": lambda path: load_corpus([path]),
    "statistics.safetensors": load_statistics,
    "model.gguf": surgery.describe,
    "model.m": read_header,
    "tokenizer.t": parse_tokenizer,
    "engine.t": DllamaTokenizer.read,
    "calibration.csv": read_points,
    "trace.csv": read_columns,
    "recording.rec.gz": read_head,
}


@pytest.mark.parametrize("kind", [device, pipe, folder])
@pytest.mark.parametrize("name", READERS)
def test_only_regular_files_are_read(tmp_path: Path, name: str, kind: Callable[[Path], None]) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    kind(path)
    with pytest.raises((EpiError, OSError), match=r"not a regular file|no such checkpoint|cannot read it|is missing"):
        READERS[name](path)


@pytest.mark.parametrize("name", sorted(set(READERS) - {"trace.csv", "recording.rec.gz", "model.m"}))
def test_a_giant_is_not_read_whole(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    starts = {
        "model.gguf": b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 4) + b"name" + struct.pack("<IQ", 8, 5 << 30),
        "statistics.safetensors": struct.pack("<Q", 5 << 30),
    }
    giant(path, starts.get(name, b""))
    with pytest.raises(EpiError):
        READERS[name](path)


def test_a_pipe_is_not_hashed(tmp_path: Path) -> None:
    pipe(tmp_path / "model")
    with pytest.raises(OSError, match="a pipe, not a regular file"):
        hash_file(tmp_path / "model")


def test_what_grew_beyond_its_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert read_bytes(tmp_path / "x", 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_bytes(tmp_path / "x", 4)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
@pytest.mark.parametrize("name", ["spec.json", "plan.json", "surgeries.json", "questions.jsonl", "quiz.jsonl"])
def test_brackets_without_end_are_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(EpiError):
        READERS[name](tmp_path / name)


# Result trees.


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_campaign_tree(tmp_path_factory.mktemp("tree"), "drop2_all", repetitions=1, per_task=10, saving=0.05)


@pytest.fixture
def tree(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "tree"))


@pytest.mark.parametrize("name", ["run_001.json", "epi_001.json", "benchmark_001.json", "power_trace_001.csv"])
@pytest.mark.parametrize("kind", [device, pipe, giant])
def test_validate_names_what_is_no_file(tree: Path, name: str, kind: Callable[[Path], None]) -> None:
    (tree / "baseline" / name).unlink()
    kind(tree / "baseline" / name)
    defects = validate_submission(tree)
    assert any(name in defect.where and defect.severity == "FAIL" for defect in defects), defects


@pytest.mark.parametrize("name", ["baseline/run_001.json", "baseline/power_trace_001.csv", "campaign.json"])
def test_a_file_of_a_tree_is_no_link(tree: Path, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    (tree / name).rename(elsewhere)
    (tree / name).symlink_to(elsewhere)
    assert any("link" in defect.what and name in defect.where for defect in validate_submission(tree))
    for command in ("calc", "report", "figures"):
        result = run.invoke(results_app, [command, str(tree)])
        if command != "calc" or name != "campaign.json":
            assert isinstance(result.exception, DataError) or "link" in result.output, (command, result.output)


def test_a_folder_of_a_tree_does_not_lead_out_of_it(tree: Path, tmp_path: Path) -> None:
    (tree / "baseline").rename(tmp_path / "outside")
    (tree / "baseline").symlink_to(tmp_path / "outside")
    before = {path: path.read_bytes() for path in (tmp_path / "outside").iterdir()}
    assert any("leads out" in defect.what for defect in validate_submission(tree))
    result = run.invoke(results_app, ["calc", str(tree), "--write"])
    assert isinstance(result.exception, DataError)
    assert {path: path.read_bytes() for path in (tmp_path / "outside").iterdir()} == before


def test_figures_are_not_written_out_of_the_tree(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tree / "figures").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="leads out"):
        write_report(tree)
    assert not list((tmp_path / "outside").iterdir())


def test_a_trace_is_no_link(tree: Path) -> None:
    path = tree / "baseline" / "link.csv"
    path.symlink_to("power_trace_001.csv")
    with pytest.raises(DataError, match="a link"):
        read_traces(path)


# Checkpoints.


def test_surgery_info_reads_no_device(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "model")
    for name in ("config.json", "model.safetensors"):
        shutil.copytree(tmp_path / "model", tmp_path / name)
        (tmp_path / name / name).unlink()
        device(tmp_path / name / name)
        assert isinstance(run.invoke(surgery_app, ["info", str(tmp_path / name)]).exception, EpiError)


def test_surgery_copies_no_file_from_outside(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "model")
    secret = tmp_path / "secret"
    secret.write_text("mine")
    (tmp_path / "model" / "notes.txt").symlink_to(secret)
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"n_experts": 12, "kept": [[0, 1, 2, 3]] * 4}))
    result = run.invoke(surgery_app, ["apply", str(tmp_path / "model"), str(plan), str(tmp_path / "out")])
    assert isinstance(result.exception, DataError) and "notes.txt" in result.exception.where
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [device, pipe, giant, folder])
def test_surgery_verify_reads_no_pipe(tmp_path: Path, kind: Callable[[Path], None]) -> None:
    make_checkpoint(tmp_path / "model")
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"n_experts": 12, "kept": [[0, 1, 2, 3]] * 4}))
    arguments = [str(tmp_path / "model"), str(plan), str(tmp_path / "out")]
    assert run.invoke(surgery_app, ["apply", *arguments]).exit_code == 0
    assert run.invoke(surgery_app, ["verify", *arguments]).exit_code == 0
    (tmp_path / "out" / "epi_surgery.json").unlink()
    kind(tmp_path / "out" / "epi_surgery.json")
    assert isinstance(run.invoke(surgery_app, ["verify", *arguments]).exception, EpiError)


def test_surgery_takes_a_checkpoint_as_the_hub_keeps_it(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "made")
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted((tmp_path / "made").iterdir())):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"n_experts": 12, "kept": [[0, 1, 2, 3]] * 4}))
    result = run.invoke(surgery_app, ["apply", str(snapshot), str(plan), str(tmp_path / "out")])
    assert result.exit_code == 0, result.exception
    assert (tmp_path / "out" / "tokenizer.json").is_file() and not (tmp_path / "out" / "tokenizer.json").is_symlink()


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json", "merges.txt"])
@pytest.mark.parametrize("kind", [device, pipe, giant])
def test_a_conversion_opens_no_pipe(tmp_path: Path, name: str, kind: Callable[[Path], None]) -> None:
    make_checkpoint(tmp_path / "model")
    (tmp_path / "model" / name).unlink(missing_ok=True)
    kind(tmp_path / "model" / name)
    with pytest.raises(DataError) as caught:
        convert(tmp_path / "model", tmp_path / "x.gguf")
    assert name in caught.value.where and not (tmp_path / "x.gguf").exists()


@pytest.mark.parametrize("kind", [device, pipe, folder])
def test_the_engine_is_given_no_pipe(tmp_path: Path, kind: Callable[[Path], None]) -> None:
    kind(tmp_path / "x.gguf")
    with pytest.raises(DataError, match="not a regular file"):
        Model(tmp_path / "x.gguf")


@pytest.mark.parametrize("kind", [device, pipe, giant])
def test_a_folder_of_tasks_holds_files(tmp_path: Path, kind: Callable[[Path], None]) -> None:
    (tmp_path / "inner").mkdir()
    kind(tmp_path / "inner" / "mine.yaml")
    with pytest.raises(ConfigurationError, match="cannot read the task"):
        TaskFiles((tmp_path,))


# Recordings, databases, questions: what a few bytes can stand for.


def test_a_recording_of_one_endless_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.rec.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(64):
            file.write(bytes(MIB))
    with pytest.raises(DataError, match="a line of more than"):
        read_head(path)


HEAD = {"epi_recording": 1, "nodes": ["n1"], "rate_hz": 10.0, "device": "x", "emulated": True}


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ({"rate_hz": 1e-300}, {}), ({"rate_hz": "fast"}, {}), ({"nodes": "n1"}, {}), ({"nodes": []}, {}),
        ({"emulated": {}}, {}), ({}, {"a": "now"}), ({}, {"a": 10**30}), ({}, {"power_w": "12"}),
        ({}, {"power_w": [1.0, 2.0]}), ({}, {"power_w": [1e308]}), ({}, {"seq": -1}), ({}, {"voltage_v": [1e308]}),
        ({}, {"frequency_hz": {}}),
    ],
)  # fmt: skip
def test_a_recording_that_lies_is_refused(tmp_path: Path, head: dict[str, object], row: dict[str, object]) -> None:
    path = tmp_path / "x.rec.gz"
    with gzip.open(path, "wt") as file:
        file.write(json.dumps(HEAD | head) + "\n" + json.dumps({"a": 0, "power_w": [12.0], "seq": 0} | row) + "\n")
    with pytest.raises(DataError):
        list(read_recording(path))


def test_a_trace_database_computes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "odd name?mode=rwc#.sqlite"
    db = sqlite3.connect(path)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS id FROM n"
    db.execute(f"CREATE VIEW sample AS {endless}")
    for name in ("stream", "instrument"):
        db.execute(f"CREATE TABLE {name} (id)")
    db.commit()
    db.close()
    with pytest.raises(DataError, match="not a trace database"):
        read_head(path)


def test_a_parquet_file_that_stands_for_too_much_is_refused(tmp_path: Path) -> None:
    count = 6_000_000
    table = pyarrow.table({"question": pyarrow.DictionaryArray.from_arrays(pyarrow.nulls(count, "int32"), ["x"])})
    (tmp_path / "mmlu").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "mmlu" / "test.parquet")
    assert (tmp_path / "mmlu" / "test.parquet").stat().st_size < MIB
    with pytest.raises(DataError, match="more than any benchmark has"):
        read_folder(tmp_path / "mmlu", PUBLISHED["mmlu"])


# The kind: everybody reads by these means.

OWN_FILES = {
    "shared/kernel/regular_files.py": "the means",
    "shared/kernel/build.py": "our own code",
    "shared/llama/engine_wheel.py": "our own build",
    "shared/llama/build.py": "the engine's libraries",
    "shared/files/": "our own state; what others give goes through trace_csv and durability",
    "shared/wire/artifact_checks.py": "our own state",
    "shared/service/auth.py": "a token's file, which may be a pipe",
    "shared/service/api_page.py": "files of a package that is installed",
    "shared/checkpoints/surgery.py": "sources whose headers were read before",
    "orchestrator/notify/webhook.py": "a token's file, which may be a pipe",
    "orchestrator/campaign/trace.py": "writes",
    "orchestrator/web/routes.py": "our own pages",
    "orchestrator/cli/api.py": "writes",
    "orchestrator/cli/campaign.py": "our own examples",
    "orchestrator/reports/report.py": "our own template",
    "orchestrator/local/": "the lab that runs here, and its demo",
    "surgeon/kinds/quantize.py": "files that were made here",
    "surgeon/conversion/to_dllama.py": "writes",
    "surgeon/work/cache.py": "our own state",
    "shared/checkpoints/hollow.py": "writes",
    "meter_bridge/trace/": "our own state",
    "meter_bridge/export.py": "writes",
    "meter_bridge/timing/anchor.py": "/proc",
    "meter_bridge/sources/emulator/loads.py": "/proc and the lab's own pid files",
    "meter_bridge/sources/rapl.py": "/sys",
    "node_agent/": "/proc, /sys and our own state",
}
READS = re.compile(r"\.read_text\(|\.read_bytes\(|(?<!def )(?<![\w.])open\(|\.open\(\"[rw]b\"|\.open\(encoding")


def test_every_reader_of_other_peoples_files_uses_the_means() -> None:
    found = []
    for package in ("shared", "orchestrator", "surgeon", "meter_bridge", "node_agent"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if "node_modules" not in name and not any(name.startswith(own) for own in OWN_FILES):
                text = path.read_text()
                found += [f"{name}: {line.strip()}" for line in text.splitlines() if READS.search(line)]
    assert not found, "\n".join(found)
