"""Every curl example of docs/api.md is executed against a running lab."""

import json
import re
import shutil
import subprocess
from pathlib import Path

from tests.support.lab import TestLab, wait_for_end

TEXT = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
SPEC = next(block for block in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL) if '"id": "example"' in block)


def curls() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    return [line.split("  #")[0] for block in blocks for line in block.splitlines() if line.startswith("curl ")]


def test_all_curl_examples_work(lab: TestLab, tmp_path: Path) -> None:
    assert shutil.which("curl"), "curl is needed; do: sudo apt-get install -y curl"
    (tmp_path / "campaign.json").write_text(SPEC)
    environment = {
        "API": f"{lab.url('orchestrator')}/v1", "AUTH": f"@{tmp_path}/auth", "PATH": "/usr/bin:/bin",
    }  # fmt: skip
    (tmp_path / "auth").write_text(f"Authorization: Bearer {lab.token('orchestrator')}\n")
    commands = curls()
    assert len(commands) >= 13
    for command in commands:
        done = subprocess.run(
            ["sh", "-c", command], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        json.loads(done.stdout)
    # The last example asked for a cancellation; the run that was under way is measured to its end first.
    assert wait_for_end(lab, "example")["state"] in ("cancelled", "finished")


def test_a_malformed_body_names_the_field(lab: TestLab) -> None:
    done = subprocess.run(
        ["curl", "-sS", "-H", f"Authorization: Bearer {lab.token('orchestrator')}", "-H",
         "Content-Type: application/json", "-d", '{"id": "x", "model": 5}', f"{lab.url('orchestrator')}/v1/campaigns"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["error"]["where"] == "body.model"
