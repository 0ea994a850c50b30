"""A benchmark task's name is looked up in an index and never becomes a path, wherever it comes from."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.benchmarks.records import TaskSpec
from orchestrator.benchmarks.task_files import TaskFiles
from orchestrator.domain.campaign.accuracy_tasks import TasksSpec
from shared.kernel.errors import ConfigurationError, NotFoundError
from shared.wire.node_jobs.engines import StartEngineParams

NO_NAMES = ("", "/_x", "/", "../demo_x", "..", ".hidden", "a/b", "a b", "a\n", "a\0", "x" * 129, "x" * 5000, "-option")
THEIRS = ("mmlu", "darijammlu_arabic_language_(general)", "AraDiCE_boolq_eng", "wmt14-en-fr", "x" * 128)


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A folder nobody configured, with a task file whose functions say when they were loaded."""
    folder = tmp_path / "planted"
    folder.mkdir()
    (folder / "task.yaml").write_text(
        f"task: {folder}_x\ndataset_path: json\ntest_split: test\nprocess_docs: !function utils.docs\n"
    )
    (folder / "utils.py").write_text(
        "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\ndef docs(given):\n    return given\n"
    )
    return folder


def test_a_path_as_name_loads_no_task_file_and_runs_no_function(planted: Path) -> None:
    with pytest.raises(ConfigurationError, match="not a name"):
        TaskFiles().find(f"{planted}_x")
    assert not (planted / "ran").exists()


def test_a_group_of_our_own_reaches_no_other_folder_either(planted: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "group.yaml").write_text(f"group: mine\ntask:\n  - {planted}_x\n")
    with pytest.raises(ConfigurationError, match="not a name"):
        TaskFiles((own,)).find("mine")
    assert not (planted / "ran").exists()


def test_functions_of_a_configured_directory_are_still_loaded(planted: Path) -> None:
    (planted / "task.yaml").write_text((planted / "task.yaml").read_text().replace(f"{planted}_x", "planted_x"))
    found = TaskFiles((planted,)).find("planted_x")
    assert callable(found[0].config["process_docs"]) and (planted / "ran").exists()


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name_is_refused_where_it_enters(name: str) -> None:
    roles: dict[str, Any] = {"mmlu_5shot": name, "arc_challenge_25shot": "b", "hellaswag_10shot": "c"}
    with pytest.raises(ValidationError) as caught:
        TasksSpec(**roles)
    assert caught.value.errors()[0]["loc"] == ("mmlu_5shot",)
    with pytest.raises(ValidationError):
        TaskSpec(name=name)
    with pytest.raises(ConfigurationError):
        TaskFiles().find(name)


@pytest.mark.parametrize("name", THEIRS)
def test_names_that_benchmarks_have_are_names(name: str) -> None:
    assert TaskSpec(name=name).name == name


def test_an_unknown_first_word_is_not_looked_for_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Path] = []

    def index(paths: tuple[Path, ...]) -> dict[str, Any]:
        looked.extend(paths)
        return {}

    files = TaskFiles()
    monkeypatch.setattr("orchestrator.benchmarks.task_files._index", index)
    with pytest.raises(NotFoundError, match=r"\.\.x"):
        files.find("x..x_y")
    assert [path.name for path in looked] == ["tasks"]


@pytest.mark.parametrize("endpoint", ["--nthreads", "-x:1", "a b:1", "node1", "node1:", "/tmp/socket:1", "node1:1\n"])
def test_a_worker_is_a_host_and_a_port_and_no_option(endpoint: str) -> None:
    with pytest.raises(ValidationError):
        StartEngineParams(model_sha256="0" * 64, workers=(endpoint,))
    for good in ("10.0.0.2:50052", "node_1.lab:9990", "[fe80::1]:9990"):
        assert StartEngineParams(model_sha256="0" * 64, workers=(good,)).workers == (good,)
