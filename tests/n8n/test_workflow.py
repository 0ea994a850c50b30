"""The shipped n8n workflow in the real n8n: imported, executed, and a campaign driven from its spec to its results.

n8n is large, so it is no part of the test tools: `make test-n8n` installs it into `.n8n/` and runs this.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from tests.support.lab import TestLab, api_of, running_lab, short_spec

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / "docs" / "n8n" / "epi-campaign.json"
N8N = Path(os.environ.get("EPI_N8N", ROOT / ".n8n" / "node_modules" / ".bin" / "n8n"))

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def lab() -> Iterator[TestLab]:
    with running_lab() as lab:
        yield lab


def n8n(home: Path, *words: str) -> str:
    """Run an n8n command with a home of its own and return what it prints."""
    environment = {
        **os.environ, "N8N_USER_FOLDER": str(home), "N8N_DIAGNOSTICS_ENABLED": "false", "DB_SQLITE_POOL_SIZE": "2",
        "N8N_VERSION_NOTIFICATIONS_ENABLED": "false", "N8N_RUNNERS_ENABLED": "true", "N8N_LOG_LEVEL": "info",
        "N8N_ENFORCE_SETTINGS_FILE_PERMISSIONS": "true",
        "N8N_EXPRESSION_ENGINE": "legacy",  # the other one wants a package built for this very Node.js
    }  # fmt: skip
    done = subprocess.run([str(N8N), *words], env=environment, capture_output=True, text=True, timeout=900)
    sys.stdout.write(done.stdout[-4000:] + done.stderr[-4000:])
    assert done.returncode == 0, f"n8n {' '.join(words)}: exit code {done.returncode}"
    return done.stdout


def adjusted(lab: TestLab) -> dict[str, Any]:
    """Return the workflow as shipped, but for the three values that its user sets in the node `Lab`."""
    workflow: dict[str, Any] = json.loads(WORKFLOW.read_text())
    (settings,) = (node for node in workflow["nodes"] if node["name"] == "Lab")
    mine = {"api": f"{lab.url('orchestrator')}/v1", "spec": "short", "poll_s": 3}
    for assignment in settings["parameters"]["assignments"]["assignments"]:
        assignment["value"] = mine.pop(assignment["name"])
    assert not mine
    return workflow


def test_the_workflow_drives_a_campaign_in_the_real_n8n(lab: TestLab, tmp_path: Path) -> None:
    assert N8N.exists(), "n8n is needed; do: make test-n8n"
    spec = short_spec("short", "baseline,drop2_all").model_dump(mode="json", exclude_none=True)
    (lab.specs_dir / "short.toml").write_text(tomli_w.dumps(spec))
    credential = {
        "id": "epiFactoryToken0", "name": "EPI Factory token", "type": "httpHeaderAuth",
        "data": {"name": "Authorization", "value": f"Bearer {lab.token('orchestrator')}"},
    }  # fmt: skip
    (tmp_path / "credentials.json").write_text(json.dumps([credential]))
    (tmp_path / "workflow.json").write_text(json.dumps(adjusted(lab)))
    n8n(tmp_path, "import:credentials", f"--input={tmp_path / 'credentials.json'}")
    n8n(tmp_path, "import:workflow", f"--input={tmp_path / 'workflow.json'}")
    said = n8n(tmp_path, "execute", "--id=epiFactory000001", "--rawOutput")

    (campaign,) = api_of(lab).call("GET", "/v1/campaigns")
    assert campaign["id"].startswith("short-") and campaign["state"] == "finished"
    outcome = json.loads(said[said.index("{") : said.rindex("}") + 1])["data"]["resultData"]
    assert outcome["lastNodeExecuted"] == "Summary"
    ((summary,),) = outcome["runData"]["Summary"][0]["data"]["main"]
    assert summary["json"]["campaign"] == campaign["id"]
    told = {row["configuration"]: row["epi"] for row in summary["json"]["configurations"]}
    results = api_of(lab).call("GET", f"/v1/campaigns/{campaign['id']}/results")
    assert told == {one["configuration"]["id"]: one["epi"] for one in results}
    assert all(epi > 0 for epi in told.values())
