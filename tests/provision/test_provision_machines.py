"""The playbooks on real (throw-away) Debian machines with systemd: needs root, debootstrap and a quarter of an hour."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from shared.engine_wheel import find_wheel
from tests.provision.machines import Machine, Network, machines, missing_tools, network, supplies

ROOT = Path(__file__).parents[2]
ANSIBLE = ROOT / "ansible"
EMULATOR = "/opt/epi-factory/current/bin/epi meter emulate --link /run/emulator/meter --rate 5"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]


@dataclass(frozen=True)
class Lab:
    """Two cluster nodes and a machine that plays every other part, and an inventory of them."""

    nodes: dict[str, Machine]
    net: Network
    inventory: Path

    def play(self, playbook: str, *argv: str, check: bool = True) -> "Recap":
        """Run a playbook from inside the lab's network, as its controller."""
        key = self.nodes["hub"].ssh[self.nodes["hub"].ssh.index("-i") + 1]
        environment = os.environ | {
            "LC_ALL": "C.UTF-8", "ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOST_KEY_CHECKING": "False",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }  # fmt: skip
        done = subprocess.run(
            [*self.net.enter, "ansible-playbook", "-i", self.inventory, "--private-key", key, "--ssh-extra-args",
             "-o UserKnownHostsFile=/dev/null", playbook, *argv],
            cwd=ANSIBLE, env=environment, capture_output=True, text=True, timeout=3600,
        )  # fmt: skip
        recap = Recap(done.returncode, done.stdout + done.stderr)
        assert not check or done.returncode == 0, recap.output[-6000:]
        return recap

    def token(self, part: str) -> str:
        return (self.inventory / "tokens" / part).read_text().strip()


@dataclass(frozen=True)
class Recap:
    """How a playbook ended."""

    code: int
    output: str

    @property
    def changed(self) -> list[str]:
        """Tasks that changed something, with the machine."""
        task, found = "", []
        for line in self.output.splitlines():
            if line.startswith(("TASK [", "RUNNING HANDLER [")):
                task = line
            elif line.startswith("changed: "):
                found.append(f"{task} {line}")
        return found


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    assert os.geteuid() == 0, "booting throw-away machines needs root"
    assert not missing_tools(), f"do: sudo apt-get install -y {' '.join(missing_tools())}"
    inventory = tmp_path_factory.mktemp("inventory")
    with network() as net, machines(["node1", "node2", "hub"], supplies(), net) as booted:
        hosts = {name: {"ansible_host": machine.address} for name, machine in booted.items()}
        groups = {"nodes": ("node1", "node2")} | dict.fromkeys(
            ("orchestrator", "meter_bridge", "surgeon", "kiosk"), ("hub",)
        )
        children = {group: {"hosts": {name: hosts[name] for name in names}} for group, names in groups.items()}
        (inventory / "hosts.yml").write_text(
            yaml.safe_dump({"all": {"vars": {"ansible_user": "root"}, "children": {"lab": {"children": children}}}})
        )
        (inventory / "group_vars").mkdir()
        (inventory / "group_vars/all.yml").write_text(yaml.safe_dump(_variables(_checkout(inventory / "checkout"))))
        yield Lab(booted, net, inventory)


def _checkout(target: Path) -> Path:
    """Copy what a release is made of: a file that somebody saves meanwhile would be a change of ours."""
    for name in ("shared", "node_agent", "meter_bridge", "surgeon", "orchestrator", "systemd", "demo"):
        shutil.copytree(ROOT / name, target / name, symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target)
    return target


def _variables(checkout: Path) -> dict[str, object]:
    demo = "/srv/epi-factory/demo"
    return {
        "lab_checkout": str(checkout),
        "lab_subnet": "10.77.0.0/24",
        "release_pip_args": "--no-index --find-links /srv/wheels",
        "engine_wheel": str(find_wheel()),
        "engine_dllama": False,  # it is cloned from the Internet
        "node_agent_threads": 1,
        "surgeon_threads": 1,
        "surgeon_models": {"epi-demo-moe": f"{demo}/model"},
        "surgeon_corpora": {"demo": [f"{demo}/calibration/statements.txt"]},
        "meter_bridge_source": {"kind": "serial", "device": "/run/emulator/meter"},
        # No adapter here; the rule for it is written all the same.
        "meter_bridge_usb_vendor_id": "2e8a",
        "meter_bridge_usb_product_id": "000a",
    }


def test_a_lab_from_bare_machines(lab: Lab) -> None:
    """One story, in the order in which a user lives it; a machine boots once."""
    bare = {name: machine.listing() for name, machine in lab.nodes.items()}

    lab.play("site.yml", "--check")
    assert {name: machine.listing() for name, machine in lab.nodes.items()} == bare, "check mode changed something"
    assert not (lab.inventory / "tokens").exists()

    assert lab.play("site.yml").changed
    again = lab.play("site.yml")
    assert again.changed == [], "the second run changed something"

    _start_emulated_meter(lab.nodes["hub"])
    verified = lab.play("verify.yml")
    assert "4 agents" in verified.output
    assert "EMULATED" in verified.output

    _the_firewall_lets_only_the_lab_in(lab)
    _jobs_run_in_the_sandbox_and_engines_outlive_a_crashed_agent(lab)

    upgraded = lab.play("upgrade.yml")
    assert upgraded.changed == [], "nothing to upgrade, nothing touched"

    refused = lab.play("uninstall.yml", check=False)
    assert refused.code != 0
    assert "uninstall_data" in refused.output
    lab.nodes["hub"].shell("systemctl stop emulated-meter")  # ours, not the lab's
    lab.play("uninstall.yml", "-e", "uninstall_data=delete")
    for name, machine in lab.nodes.items():
        left = {path for path in machine.listing() - bare[name] if "epi" in path}
        assert left == set(), name
        assert "epi-" not in machine.shell("cat /etc/passwd /etc/group; systemctl list-unit-files"), name
        assert "epi_factory" not in machine.shell("nft list tables 2>/dev/null || true"), name
        assert "EPI" not in machine.shell("cat /etc/hosts"), name


def _start_emulated_meter(hub: Machine) -> None:
    hub.shell(
        "install -d -o epi-meter-bridge /run/emulator && systemd-run --quiet --unit=emulated-meter"
        f" --uid=epi-meter-bridge {EMULATOR} --channel node1=schedule:5x3.2,10x12 --channel node2=schedule:5x3.2,10x12"
    )
    end = time.monotonic() + 60
    while time.monotonic() < end and "yes" not in hub.shell("test -e /run/emulator/meter && echo yes", check=False):
        time.sleep(1)


def _the_firewall_lets_only_the_lab_in(lab: Lab) -> None:
    """The controller is in the lab's network but no node: no agent and no engine answers it, the dashboard does."""

    def reaches(machine: Machine, port: int) -> bool:
        code = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"
        argv = [*lab.net.enter, sys.executable, "-c", code, machine.address, str(port)]
        return subprocess.run(argv, capture_output=True, timeout=60).returncode == 0

    assert reaches(lab.nodes["hub"], 8600)
    assert not reaches(lab.nodes["hub"], 8601)
    assert not reaches(lab.nodes["node1"], 8701)
    assert not reaches(lab.nodes["node1"], 50052)


_JOB = """
import time, httpx
client = httpx.Client(base_url=given["url"], headers={"Authorization": "Bearer " + given["token"]}, timeout=60)
body = {"kind": given["kind"], "params": given["params"]}
state = client.put("/v1/jobs/" + given["id"], json=body).raise_for_status().json()
while state["status"] in ("queued", "running"):
    time.sleep(0.3)
    state = client.get("/v1/jobs/" + given["id"]).json()
answer = state
"""


def _jobs_run_in_the_sandbox_and_engines_outlive_a_crashed_agent(lab: Lab) -> None:
    hub, node1 = lab.nodes["hub"], lab.nodes["node1"]

    def job(part: str, url: str, kind: str, **params: object) -> dict[str, object]:
        state = hub.python(_JOB, url=url, token=lab.token(part), id=f"test/{time.time_ns()}/{part}/{kind}", kind=kind,
                           params=params)  # fmt: skip
        assert state["status"] == "finished", state
        result = state["result"]
        assert isinstance(result, dict)
        return result

    surgeon = f"http://{hub.address}:8601"
    agents = {name: f"http://{lab.nodes[name].address}:8701" for name in ("node1", "node2")}
    prepared = job("surgeon", surgeon, "prepare", model="epi-demo-moe", quantization="Q4_K_M")
    observed = job("surgeon", surgeon, "observe", corpus="demo", model_sha256=prepared["f16_sha256"])
    assert observed["statistics_sha256"], "the eval callback runs under MemoryDenyWriteExecute"
    base = prepared["base_sha256"]
    job("node1", agents["node1"], "fetch", sha256=base)
    endpoints = [job(name, url, "start_worker")["endpoint"] for name, url in agents.items()]
    engine = {"model_sha256": base, "workers": endpoints, "context_tokens": 512, "sequences": 4, "threads": 1}
    job("node1", agents["node1"], "start_engine", **engine)

    before = node1.shell("cat /var/lib/epi-factory/node-agent/pids/engine.pid")
    agent = node1.shell("systemctl show -P MainPID epi-node-agent").strip()
    node1.shell(f"kill -KILL {agent}")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        now = node1.shell("systemctl show -P MainPID epi-node-agent; systemctl is-active epi-node-agent", check=False)
        if now.split()[0] not in (agent, "0") and now.split()[1] == "active":
            break
        time.sleep(1)
    assert node1.shell("cat /var/lib/epi-factory/node-agent/pids/engine.pid") == before, "the engine did not survive"
    decoded = job("node1", agents["node1"], "decode", prompts=["The capital of France is"], tokens_each=8)
    assert json.dumps(decoded).count("generated")

    node1.shell("systemctl stop epi-node-agent")
    assert node1.shell("pgrep -u epi-node-agent", check=False) == "", "a clean stop ends the engines"
    node1.shell("systemctl start epi-node-agent")
    exposure = node1.shell("systemd-analyze security --no-pager epi-node-agent | tail -1")
    found = re.search(r"(\d+\.\d)", exposure)
    assert found is not None
    assert float(found[1]) <= 2.0
