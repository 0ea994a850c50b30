"""A real one-machine lab for tests: real processes on loopback, the embedded model, the emulated meter."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tomli_w

from orchestrator.campaign.demo_spec import demo_spec
from orchestrator.cli.api import Api
from orchestrator.domain.campaign.protocol import AccuracyPlace
from orchestrator.domain.campaign.spec import CampaignSpec, WorkloadSpec
from orchestrator.local import control
from orchestrator.local.layout import LocalLab, load_demo
from shared.kernel.errors import InfrastructureError
from shared.wire.node_jobs.workloads import MarkerParams

DEMO = Path(__file__).parents[2] / "demo" / "demo.toml"


def quick_spec(campaign_id: str, configurations: str, *, repetitions: int = 1, questions: int = 8) -> CampaignSpec:
    """Return the demo's campaign with few questions."""
    return demo_spec(
        DEMO, campaign_id=campaign_id, configurations=configurations, repetitions=repetitions, questions=questions
    )


def short_spec(
    campaign_id: str, configurations: str, *, repetitions: int = 1, questions: int = 4, decode_repeats: int = 1
) -> CampaignSpec:
    """Return a campaign whose runs cost seconds: four questions a task, windows of about a second."""
    spec = quick_spec(campaign_id, configurations, repetitions=repetitions, questions=questions)
    windows = spec.windows.model_copy(
        update={
            "idle_s": 0.6, "gap_before_window_s": 0.05, "marker": MarkerParams(on_s=0.3, off_s=0.2, cycles=1),
            "prefill": WorkloadSpec(tokens_each=128, prompts=8),
            "decode": WorkloadSpec(tokens_each=32, prompts=8, repeats=decode_repeats),
        }
    )  # fmt: skip
    return spec.model_copy(update={"windows": windows})


def scored_spec(
    campaign_id: str, configurations: str, where: AccuracyPlace, *, repetitions: int = 1, questions: int = 8,
    cluster_sample: int = 3, questions_per_job: int = 200,
) -> CampaignSpec:  # fmt: skip
    """Return a short campaign of version 2 whose questions are answered where `where` says."""
    spec = short_spec(campaign_id, configurations, repetitions=repetitions)
    accuracy = spec.intelligence.model_copy(
        update={
            "where": where,
            "questions": questions,
            "cluster_sample": cluster_sample,
            "questions_per_job": questions_per_job,
        }
    )
    fields = spec.model_dump(mode="json", exclude={"tasks", "schema_version"}, exclude_none=True)
    return CampaignSpec.model_validate(
        fields | {"schema_version": 2, "accuracy": accuracy.model_dump(mode="json", exclude_none=True)}
    )


def small_demo(folder: Path, *, scorers: tuple[str, ...] = (), **more: object) -> Path:
    """Write the demo's settings with a tenth of its calibration and held-out texts, and return the file.

    Statistics and checks of a variant then cost a second, in labs that look at neither; `more` are further settings.
    """
    settings = load_demo(DEMO)

    def beginning(path: Path) -> str:
        short = folder / path.name
        short.write_text("".join(path.read_text().splitlines(keepends=True)[:50]))
        return str(short)

    lab = settings.model_dump(mode="json", exclude_none=True) | {
        "corpus_files": [beginning(path) for path in settings.corpus_files],
        "heldout_text": beginning(settings.heldout_text),
        "scorers": scorers,
        **more,
    }
    file = folder / "demo.toml"
    file.write_text(tomli_w.dumps({"lab": lab}))
    return file


class TestLab(LocalLab):
    """A one-machine lab that can be stopped and started again within a test."""

    __test__ = False

    def start(self, demo: Path = DEMO) -> None:
        """Start all processes and wait until they answer."""
        supervisor = control.start(self, demo, die_with_parent=True)
        _supervisors[self.out] = supervisor
        control.wait_ready(self, demo, lambda _: None)

    def stop(self) -> None:
        """Stop all processes."""
        control.stop(self)
        if (supervisor := _supervisors.pop(self.out, None)) is not None:
            supervisor.wait(timeout=60)


_supervisors: dict[Path, subprocess.Popen[bytes]] = {}


@contextmanager
def new_lab() -> Iterator[TestLab]:
    """Give a lab in a fresh folder (a short path: Unix sockets) that is still to be started; remove it at the end."""
    out = Path(tempfile.mkdtemp(prefix="epi"))
    lab = TestLab(out)
    lab.home.mkdir()
    try:
        yield lab
    finally:
        shutil.rmtree(out, ignore_errors=True)


@contextmanager
def running_lab(demo: Path | None = DEMO) -> Iterator[TestLab]:
    """Start a lab in a fresh folder, stop it and remove the folder at the end; without `demo` it is a `small_demo`."""
    with new_lab() as lab:
        try:
            lab.start(demo or small_demo(lab.home))
            yield lab
        finally:
            lab.stop()


def api_of(lab: LocalLab) -> Api:
    """Return a client of the lab's orchestrator."""
    return Api(lab.url("orchestrator"), lab.token("orchestrator"))


def start_campaign(lab: LocalLab, spec: CampaignSpec) -> None:
    """Create and start a campaign."""
    api_of(lab).call("POST", "/v1/campaigns", spec.model_dump(mode="json"))


def wait_for_step(
    lab: LocalLab, campaign: str, run: str, step: str, *, attempt: int = 1, timeout_s: float = 240
) -> None:
    """Return as soon as the journal holds the intent of a step in this attempt or a later one."""
    deadline = time.monotonic() + timeout_s
    api = api_of(lab)
    while time.monotonic() < deadline:
        for entry in api.call("GET", f"/v1/entries?campaign={campaign}&limit=1000"):
            if (entry["run"], entry["step"], entry["kind"]) == (run, step, "intent") and entry["attempt"] >= attempt:
                return
        time.sleep(0.05)
    status = api.call("GET", f"/v1/campaigns/{campaign}")
    attempts = [one["attempts"] for one in status["runs"] if f"{one['configuration']}/rep-{one['repetition']}" == run]
    raise AssertionError(
        f"{run} did not reach {step} within {timeout_s} s: the campaign is {status['state']} ({status['reason']}), it"
        f" does {status['step']!r}; attempts {attempts}"
    )


def wait_for_job(
    lab: LocalLab, campaign: str, run: str, step: str, *, attempt: int = 1, node: str = "node1", timeout_s: float = 240
) -> None:
    """Return as soon as a node works at a step's job of this attempt or a later one.

    Its intent is journaled before the node has it: whoever is killed in between loses nothing that was begun.
    """
    deadline = time.monotonic() + timeout_s
    asked = Api(lab.url(node), lab.token(node))
    seen: list[str] = []
    while time.monotonic() < deadline:
        with suppress(InfrastructureError):  # it was killed, and is being started again
            seen = [job["id"] for job in asked.call("GET", "/v1/jobs?limit=20") if job["status"] == "running"]
        for number in (one.removeprefix(f"{campaign}/{run}/attempt-").split("/") for one in seen):
            if number[0].isdigit() and int(number[0]) >= attempt and number[1] == step:
                return
        time.sleep(0.02)
    status = api_of(lab).call("GET", f"/v1/campaigns/{campaign}")
    raise AssertionError(f"{node} does no {step} of {run} within {timeout_s} s: {status}")


def wait_for_end(lab: LocalLab, campaign: str, timeout_s: float = 240) -> dict[str, Any]:
    """Return the status of a campaign that has ended; an orchestrator that is away is waited for."""
    deadline = time.monotonic() + timeout_s
    status: dict[str, Any] = {}
    while time.monotonic() < deadline:
        try:
            status = api_of(lab).call("GET", f"/v1/campaigns/{campaign}")
        except InfrastructureError:
            time.sleep(0.2)
            continue
        if status["state"] in ("finished", "failed", "cancelled", "paused"):
            return status
        time.sleep(0.2)
    raise AssertionError(f"no end within {timeout_s} s: {status}")


def process_of(lab: LocalLab, part: str) -> int:
    """Return the pid of the lab's process `part`."""
    wanted = str(lab.config_file(part)).encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if wanted in command:
                return int(folder.name)
    raise AssertionError(f"no process {part}")


def processes_under(lab: LocalLab) -> list[str]:
    """Return the command lines of all processes that name the lab's folder."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(lab.out) in command and "pytest" not in command:
                found.append(f"{folder.name} {command}")
    return found
