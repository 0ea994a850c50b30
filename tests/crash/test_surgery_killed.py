"""kill -9 in the middle of surgery: nothing is left that looks finished, and the next attempt succeeds."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shared.checkpoints import surgery
from shared.kernel.records import SurgeryPlan, canonical_json
from surgeon.conversion.to_gguf import convert
from surgeon.verification.verify import verify
from tests.support.checkpoint_factory import make_checkpoint

PLAN = SurgeryPlan(n_experts=12, kept=((0, 2, 3, 5, 7, 8),) * 2)
CHILD = """
import sys, time
from pathlib import Path
from shared.checkpoints import surgery
from shared.kernel.records import SurgeryPlan
surgery._STEP_BYTES = 4096
def wait(done, total):
    if done > total * float(sys.argv[4]):
        print("there", flush=True)
        time.sleep(60)
surgery.apply_plan(Path(sys.argv[1]), SurgeryPlan.model_validate_json(sys.argv[2]), Path(sys.argv[3]), on_progress=wait)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("killed")
    make_checkpoint(root / "hf", n_layers=2, n_experts=12, experts_per_token=3)
    convert(root / "hf", root / "base.gguf")
    return root


@pytest.mark.parametrize("share", ["0.0", "0.5", "0.97"])
@pytest.mark.parametrize("source", ["base.gguf", "hf"])
def test_killed_at(lab: Path, tmp_path: Path, source: str, share: str) -> None:
    target = tmp_path / "result"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(lab / source), canonical_json(PLAN).decode(), str(target), share],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout and child.stdout.readline() == "there\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert not target.exists()
    assert all(entry.name.startswith(".") and entry.name.endswith(".partial") for entry in tmp_path.iterdir())
    surgery.apply_plan(lab / source, PLAN, target)
    assert list(tmp_path.iterdir()) == [target], "the next run removes what the killed one left"
    verify(lab / source, PLAN, target)
