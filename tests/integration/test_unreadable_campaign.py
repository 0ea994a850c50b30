"""One campaign of the journal that today's model refuses, and the real orchestrator: it is shown, it stops nobody."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.domain.campaign.timeouts import TimeoutsSpec
from orchestrator.store.tables import SUMMED
from tests.support.by_hand import by_hand
from tests.support.daemons import TOKEN, DaemonProcess, make_daemon
from tests.support.journal_factory import fill_journal, old_spec

UNREADABLE, READABLE = old_spec(0).id, old_spec(1).id


@pytest.fixture(scope="module")
def orchestrator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """The journal of an orchestrator from tomorrow: its running campaign has a key that nobody knows here."""
    daemon = make_daemon("orchestrator", tmp_path_factory.mktemp("lab"))
    (daemon.folder / "prompts").write_text("one prompt\n" * 200)
    asyncio.run(fill_journal(daemon.state_dir / "journal.sqlite", 2))
    with by_hand(daemon.state_dir / "journal.sqlite", SUMMED) as db:
        spec = json.loads(db.execute("SELECT spec FROM campaign WHERE id = ?", (UNREADABLE,)).fetchone()[0])
        spec["windows"]["of_tomorrow"] = 1
        values = (json.dumps(spec), UNREADABLE)
        db.execute(
            "UPDATE campaign SET spec = ?, state = 'running', reason = 'resumed by the user' WHERE id = ?", values
        )
    daemon.start()
    yield daemon
    assert daemon.end() == 0


def call(daemon: DaemonProcess, method: str, path: str, body: Any = None) -> httpx.Response:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return httpx.request(method, f"http://127.0.0.1:{daemon.port}/v1{path}", json=body, headers=headers, timeout=30)


def test_lists_show_it_with_its_state_and_why_it_cannot_be_read(orchestrator: DaemonProcess) -> None:
    listed = {one["id"]: one for one in call(orchestrator, "GET", "/campaigns").json()}
    assert set(listed) == {UNREADABLE, READABLE}
    shown = listed[UNREADABLE]
    assert (shown["state"], shown["readable"], shown["runs_done"]) == ("running", False, 78)
    assert "windows.of_tomorrow: Extra inputs are not permitted" in shown["reason"]
    assert listed[READABLE]["readable"] and listed[READABLE]["runs_total"] == 78
    health = call(orchestrator, "GET", "/health").json()
    assert health["status"] == "degraded"
    assert health["problems"][0].startswith(f"campaign {UNREADABLE} is not run: this version cannot read")
    argv = [sys.executable, "-c", "from shared.cli import main; main()", "campaign", "list", "--url",
            f"http://127.0.0.1:{orchestrator.port}", "--token-file", str(orchestrator.folder / "token")]  # fmt: skip
    said = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert said.returncode == 0 and UNREADABLE in said.stdout, said.stderr


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "", 422),
        ("GET", "/runs/baseline/1", 422),
        ("POST", "/resume", 422),
        ("POST", "/pause", 422),
        ("POST", "/retry", 422),
        ("GET", "/results", 200),
        ("GET", "/analysis", 200),
        ("GET", "/runs/baseline/1/files/epi", 404),
        ("GET", "/export", 404),
    ],
)
def test_no_question_about_it_is_a_defect(orchestrator: DaemonProcess, method: str, path: str, status: int) -> None:
    answer = call(orchestrator, method, f"/campaigns/{UNREADABLE}{path}")
    assert answer.status_code == status, answer.text
    if status == 422:
        error = answer.json()["error"]
        assert (error["fault"], error["where"]) == ("data", UNREADABLE)
        assert "cannot read" in error["message"] and "cancel" in error["hint"]
    assert call(orchestrator, "GET", f"/entries?campaign={UNREADABLE}").status_code == 200


def test_a_new_campaign_runs_and_cancelling_the_other_ends_the_problem(orchestrator: DaemonProcess) -> None:
    spec = old_spec(7).model_copy(update={"configurations": "baseline", "timeouts": TimeoutsSpec(recover_s=1)})
    made = call(orchestrator, "POST", "/campaigns", spec.model_dump(mode="json"))
    assert made.status_code == 201, made.text
    ends = time.monotonic() + 90
    while (status := call(orchestrator, "GET", f"/campaigns/{spec.id}").json())["state"] == "running":
        assert time.monotonic() < ends, status
        time.sleep(0.2)
    assert status["state"] == "failed" and "does not answer" in status["reason"], "no machine is there to run it"

    assert call(orchestrator, "POST", f"/campaigns/{UNREADABLE}/cancel").json()["state"] == "cancelled"
    ends = time.monotonic() + 20
    while (health := call(orchestrator, "GET", "/health").json())["status"] != "ok":
        assert time.monotonic() < ends, health
        time.sleep(0.1)
    shown = {one["id"]: one["state"] for one in call(orchestrator, "GET", "/campaigns").json()}
    assert shown == {UNREADABLE: "cancelled", READABLE: "finished", spec.id: "failed"}
    assert "Traceback" not in Path(orchestrator.stderr).read_text()
