"""`epi data`: downloads over a real HTTP server with resume, imports folders, tells what is missing."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from typer.testing import CliRunner

from orchestrator.benchmarks.fetch import check, download
from orchestrator.benchmarks.published import PUBLISHED, Published
from orchestrator.cli.data import app
from shared.kernel.errors import ConfigurationError, DataError, InfrastructureError

DOCS = [
    {"question": f"Which is {n}?", "subject": "anatomy", "choices": ["a", "b", "c", "d"], "answer": n % 4}
    for n in range(50)
]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Serve a folder over loopback, with ranges."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = uvicorn.Server(
        uvicorn.Config(
            Starlette(routes=[Mount("/", StaticFiles(directory=folder))]), host="127.0.0.1", port=0, log_level="error"
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield folder, f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(timeout=10)


def _published(base: str, *, expected: int = 50) -> Published:
    return replace(PUBLISHED["mmlu"], urls={"test": f"{base}/test.jsonl"}, expected={"test": expected})


def _lines() -> str:
    return "".join(json.dumps(doc) + "\n" for doc in DOCS)


def test_download_resumes_and_is_kept(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, base = served
    (folder / "test.jsonl").write_text(_lines(), encoding="utf-8")
    benchmark = _published(base)
    partial = tmp_path / "data" / "mmlu" / "test.jsonl.part"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(_lines().encode()[:1000])
    seen: list[int] = []
    written = download(benchmark, tmp_path / "data", lambda _name, done, _total: seen.append(done))
    assert [path.name for path in written] == ["test.jsonl"]
    assert written[0].read_text(encoding="utf-8") == _lines()
    assert seen[-1] == len(_lines())
    assert min(seen) > 1000  # the first 1000 bytes were not asked for again
    assert download(benchmark, tmp_path / "data") == []
    status = check(benchmark, tmp_path / "data")
    assert (status.usable, status.problem, status.subjects) == (True, "", 1)
    assert [(split.split, split.questions) for split in status.splits] == [("test", 50)]


def test_what_is_not_the_benchmark_is_removed(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, base = served
    (folder / "test.jsonl").write_text(_lines(), encoding="utf-8")
    with pytest.raises(DataError, match="50 questions where 51 belong"):
        download(_published(base, expected=51), tmp_path)
    (folder / "test.jsonl").write_text("<html>log in first</html>", encoding="utf-8")
    with pytest.raises(DataError, match="not valid JSON"):
        download(_published(base), tmp_path)
    assert list((tmp_path / "mmlu").iterdir()) == []


def test_an_unreachable_source_names_the_other_way(served: tuple[Path, str], tmp_path: Path) -> None:
    _, base = served
    with pytest.raises(InfrastructureError, match=r"HTTP 404.*--from"):
        download(_published(base), tmp_path)
    with pytest.raises(InfrastructureError, match="--from"):
        download(_published("http://127.0.0.1:1"), tmp_path)


def test_commands(tmp_path: Path) -> None:
    source = tmp_path / "mine" / "test"
    source.mkdir(parents=True)
    (source / "anatomy_test.jsonl").write_text(_lines(), encoding="utf-8")
    where = ["--data-dir", str(tmp_path / "data")]
    run = CliRunner().invoke
    before = run(app, ["check", "mmlu", "--json", *where])
    assert before.exit_code == 1
    assert json.loads(before.stdout)[0]["problem"] == "not on this machine"
    assert run(app, ["fetch", "mmlu", "--from", str(source.parent), *where]).exit_code == 0
    after = run(app, ["check", "mmlu", "--json", *where])
    assert after.exit_code == 0
    status = json.loads(after.stdout)[0]
    assert status["usable"]
    assert status["problem"] == "no split dev; test has 50 of 14042"
    assert "can be asked" in run(app, ["check", "mmlu", *where]).stdout
    assert isinstance(run(app, ["fetch", "glue", *where]).exception, ConfigurationError)
    assert isinstance(run(app, ["fetch", "--from", str(source), *where]).exception, ConfigurationError)
    assert isinstance(run(app, ["fetch", "mmlu", "--from", str(tmp_path / "no"), *where]).exception, DataError)
    (tmp_path / "data" / "mmlu" / "test.jsonl").write_text("{}\n", encoding="utf-8")
    broken = run(app, ["check", "mmlu", "--json", *where])
    assert broken.exit_code == 1
    assert "record 1" in json.loads(broken.stdout)[0]["problem"]
