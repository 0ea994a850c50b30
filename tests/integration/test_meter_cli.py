"""`epi meter ...` against a real bridge, a real emulator and real node agents."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from meter_bridge.cli import app
from meter_bridge.protocol.frames import Frame
from meter_bridge.trace.recording import RecordingWriter, read_head, read_recording
from shared.kernel.errors import EpiError
from shared.wire.meter_api import LivePower, MeterStatus
from tests.support.meter_rig import MeterRig, stop
from tests.support.node_lab import TOKEN, agents


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[MeterRig]:
    with MeterRig(tmp_path) as made:
        yield made


def meter(rig: MeterRig, *arguments: str, code: int = 0, answer: str = "", remote: bool = True) -> str:
    """Run `epi meter` in this process; return its output, errors in the words of the console script."""
    url = ["--url", f"http://127.0.0.1:{rig.port}"] if remote else []
    result = CliRunner().invoke(app, [arguments[0], *url, *arguments[1:]], input=answer)
    if isinstance(result.exception, EpiError):
        assert code == 1, str(result.exception)
        return f"{result.output}{result.exception}"
    assert result.exit_code == code, f"{result.output} {result.exception!r}"
    return result.output


def test_looking_exporting_and_tidying(rig: MeterRig) -> None:
    assert "does not answer" in meter(rig, "status", code=1)
    rig.start_emulator("--rate", "50")
    rig.start_bridge()
    rig.wait(lambda: rig.status().frames > 100, "frames")
    command = ["-m", "shared.cli", "meter", "status", "--json", "--url", f"http://127.0.0.1:{rig.port}"]
    run = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=60, check=True)
    assert MeterStatus.model_validate_json(run.stdout).instrument.emulated
    text = meter(rig, "status")
    assert "emulated" in text
    assert "node1, node2" in text
    lines = meter(rig, "watch", "--json", "--count", "3").splitlines()
    assert len([LivePower.model_validate_json(line) for line in lines]) == 3

    out = rig.folder / "trace.csv"
    assert "(emulated)" in meter(rig, "export", str(out), "--start", "-1min")
    rows = out.read_text().splitlines()
    assert rows[0] == "timestamp,node,watts"
    assert len(rows) > 200
    assert "written" in meter(rig, "export", str(rig.folder / "trace.parquet"))
    assert "ends before it starts" in meter(rig, "export", str(out), "--start", "now", "--end", "-1s", code=1)
    assert "samples" in meter(rig, "compact", "--older-than-days", "1")
    assert json.loads(meter(rig, "prune", "--keep-days", "1", "--json"))["deleted_samples"] == 0

    assert meter(rig, "fault", str(rig.control), "stuck:ch=1", remote=False) == "ok\n"
    assert "unknown fault" in meter(rig, "fault", str(rig.control), "tea", code=1, remote=False)


def test_calibration_from_a_csv_and_guided(rig: MeterRig) -> None:
    rig.start_emulator("--rate", "50", "--noise-w", "0", "--fault", "gain:ch=1,k=0.8", "--fault", "gain:ch=2,k=0.9")
    rig.start_bridge()
    rig.wait(lambda: rig.status().frames > 10, "frames")
    loads = rig.folder / "loads.csv"
    common = ("--reference", "lab meter", "--reference-percent", "0.2")
    loads.write_text("node,reference_w,measured_w\n" + "".join(f"node1,{w},{0.8 * w}\n" for w in (3, 9, 20, 50)))
    assert "cal-0001 is in force" in meter(rig, "calibrate", *common, "--from-csv", str(loads))
    loads.write_text("node,reference_w,measured_w\n" + "".join(f"node1,{w},{-w}\n" for w in (3, 9, 20, 50)))
    assert "falls as the load rises" in meter(rig, "calibrate", *common, "--from-csv", str(loads), code=1)
    assert "either" in meter(rig, "calibrate", *common, code=1)
    # Guided: the emulated load stays at 6 W, so four different reference values are nonsense, and refused as such.
    guide = ("--node", "node2", "--loads", "4", "--seconds", "1")
    text = meter(rig, "calibrate", *common, *guide, code=1, answer="3\n9\n20\n50\n")
    assert "the channel shows 5.4" in text
    assert rig.samples().instrument.calibration_id == "cal-0001"


def test_a_recording_is_replayed_and_says_so(rig: MeterRig) -> None:
    rig.start_emulator("--rate", "50", loads=("node1=schedule:0.5x4,0.5x8", "node2=schedule:1x3"))
    config = rig.folder / "record.toml"
    config.write_text(
        f'name = "m"\nport = 1\nstate_dir = "{rig.state}"\nchannels = ["node1", "node2"]\n'
        f'[source]\ndevice = "{rig.link}"\n'
    )
    recording = rig.folder / "a.rec.gz"
    meter(rig, "record", "--config", str(config), "--out", str(recording), "--seconds", "3", remote=False)
    head, frames = read_head(recording), list(read_recording(recording))
    assert head.emulated
    assert len(frames) > 100
    assert rig.emulator is not None
    stop(rig.emulator)
    assert not rig.link.is_symlink()

    # On a pseudo-terminal, in its own time: a longer one, so that a busy machine has time to connect.
    long = rig.folder / "long.rec.gz"
    with RecordingWriter(long, head) as writer:
        for number in range(3000):
            writer.add(Frame((5.0, 6.0), seq=number, device_ms=number * 50), number * 50_000_000)
    command = [sys.executable, "-m", "shared.cli", "meter", "replay", str(long), "--link", str(rig.link)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as player:
        assert player.stdout is not None
        assert "replay ready" in player.stdout.readline()
        rig.start_bridge()
        rig.wait(lambda: rig.status().frames > 20, "replayed frames")
        assert rig.status().instrument.kind == "replay"
        assert rig.status().instrument.emulated
        player.terminate()
        assert player.wait(20) == 0
    assert not rig.link.is_symlink()
    rig.kill_bridge()

    # As a source of the bridge, faster than real time: the stored times are still the recorded ones.
    rig.state = rig.folder / "second"
    rig.start_bridge(source=f'[source]\nkind = "replay"\npath = "{recording}"\nspeed = 50\n')
    rig.wait(lambda: any("has ended" in text for text in rig.status().problems), "the end")
    block = rig.samples(end_utc_ns=rig.status().last_sample_utc_ns or 0)
    assert len(block.utc_ns) >= len(frames) - 1
    assert (block.utc_ns[-1] - block.utc_ns[0]) / 1e9 == pytest.approx(frames[-1].offset_ns / 1e9, abs=0.2)
    assert block.instrument.kind == "replay"


def test_identify_finds_swapped_channels_with_real_agents(tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "meter").mkdir()
    with agents(tmp_path / "agents", "node1", "node2") as (one, two), MeterRig(tmp_path / "meter") as rig:
        loads = (f"node1={one.state_dir}/pids", f"node2={two.state_dir}/pids")
        rig.start_emulator("--rate", "20", "--core-w", "8", loads=loads)
        rig.start_bridge()
        rig.wait(lambda: rig.status().frames > 20, "frames")
        common = ("--agent", f"node1={one.url}", "--agent", f"node2={two.url}", "--on-s", "0.6")
        common += ("--agent-token-file", str(tmp_path / "agents" / "token"))  # type: ignore[assignment]
        assert (tmp_path / "agents" / "token").read_text() == TOKEN
        assert "right" in meter(rig, "find-channel", *common)
        rig.fault("swap:a=1,b=2")
        answer = meter(rig, "find-channel", *common, code=1)
        assert "node1: node2's channel answered" in answer
        assert "node2: node1's channel answered" in answer
