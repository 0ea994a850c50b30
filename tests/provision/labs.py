"""A lab of throw-away machines and the controller's view of it: inventory, playbooks, tokens, jobs, the API."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shared.llama.engine_wheel import find_wheel
from tests.provision.machines import Machine, Network, machines, network
from tests.provision.supplies import supplies

ROOT = Path(__file__).parents[2]
DEMO = "/srv/epi-factory/demo"
NAMES = ("node1", "node2", "hub")


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


_CALL = """
import httpx, ssl
trust = ssl.create_default_context(cafile="/etc/epi-factory/ca.pem" if given["url"].startswith("https") else None)
headers = {"Authorization": "Bearer " + given["token"]}
client = httpx.Client(base_url=given["url"], headers=headers, timeout=60, verify=trust)
"""
_JOB = (
    _CALL
    + """
import time
body = {"kind": given["kind"], "params": given["params"]}
answer = client.put("/v1/jobs/" + given["id"], json=body).raise_for_status().json()
while answer["status"] in ("queued", "running"):
    time.sleep(0.3)
    answer = client.get("/v1/jobs/" + given["id"]).json()
"""
)
_GET = _CALL + 'answer = client.get(given["path"]).raise_for_status().json()\n'


@dataclass(frozen=True)
class Lab:
    """Two cluster nodes and a machine that plays every other part; `home` holds inventory and checkout."""

    machines: dict[str, Machine]
    net: Network
    home: Path

    @property
    def hub(self) -> Machine:
        """The machine of orchestrator, surgeon, meter bridge and display."""
        return self.machines["hub"]

    @property
    def url(self) -> str:
        """The orchestrator, as a command on the hub reaches it."""
        return f"{self.scheme}://127.0.0.1:8600"

    @property
    def scheme(self) -> str:
        """What the inventory says that services speak."""
        return "https" if self._variables().get("lab_tls", True) else "http"

    def speak_tls(self, wanted: bool) -> None:
        """Change the inventory; true is what is not said."""
        variables = {name: value for name, value in self._variables().items() if name != "lab_tls"}
        self._inventory_variables.write_text(yaml.safe_dump(variables if wanted else variables | {"lab_tls": False}))

    @property
    def _inventory_variables(self) -> Path:
        return self.home / "inventory/group_vars/all.yml"

    def _variables(self) -> dict[str, Any]:
        read: dict[str, Any] = yaml.safe_load(self._inventory_variables.read_text())
        return read

    @property
    def checkout(self) -> Path:
        """What releases are packed from."""
        return self.home / "checkout"

    def play(self, playbook: str, *argv: str, check: bool = True) -> Recap:
        """Run a playbook from inside the lab's network, as its controller."""
        key = self.hub.ssh[self.hub.ssh.index("-i") + 1]
        environment = os.environ | {
            "LC_ALL": "C.UTF-8", "ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOST_KEY_CHECKING": "False",
            # A lab of its own addresses the same machines: its connections must not be taken for ours.
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.home / "ssh"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }  # fmt: skip
        start, log = time.monotonic(), self.home / "playbook.log"
        with log.open("w") as said:
            done = subprocess.run(
                [*self.net.enter, "ansible-playbook", "-i", self.home / "inventory", "--private-key", key,
                 "--ssh-extra-args", "-o UserKnownHostsFile=/dev/null", playbook, *argv],
                cwd=ROOT / "ansible", env=environment, stdout=said, stderr=said, timeout=3600,
            )  # fmt: skip
        print(f"{time.monotonic() - start:5.0f} s  {playbook} {' '.join(argv)}", flush=True)
        recap = Recap(done.returncode, log.read_text())
        assert not check or done.returncode == 0, recap.output[-6000:]
        return recap

    def token(self, part: str) -> str:
        """Return a part's token, which the first run made."""
        return (self.home / "inventory/tokens" / part).read_text().strip()

    def job(self, part: str, kind: str, **params: object) -> dict[str, Any]:
        """Let the surgeon or a node do something, asked from the hub as the orchestrator would; its last state."""
        where = (self.hub.address, 8601) if part == "surgeon" else (self.machines[part].address, 8701)
        return self.hub.python(
            _JOB, url="{}://{}:{}".format(self.scheme, *where), token=self.token(part), kind=kind, params=params,
            id=f"test/{time.time_ns()}/{part}/{kind}",
        )  # fmt: skip

    def result(self, part: str, kind: str, **params: object) -> dict[str, Any]:
        """Return the result of a job that must succeed."""
        state = self.job(part, kind, **params)
        assert state["status"] == "finished", state
        return state["result"]

    def api(self, path: str) -> Any:
        """Return what the orchestrator answers."""
        return self.hub.python(_GET, url=self.url, token=self.token("orchestrator"), path=path)

    def reaches(self, name: str, port: int) -> bool:
        """Tell whether the controller, which is in the lab's network but no part of the lab, gets a connection."""
        code = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"
        argv = [*self.net.enter, sys.executable, "-c", code, self.machines[name].address, str(port)]
        return subprocess.run(argv, capture_output=True, timeout=60).returncode == 0


@contextmanager
def throw_away_lab(home: Path) -> Iterator[Lab]:
    """Boot bare machines, write an inventory of them, and take everything away afterwards."""
    with network() as net, machines(NAMES, supplies(), net) as booted:
        lab = Lab(booted, net, home)
        _copy_checkout(lab.checkout)
        hosts: dict[str, dict[str, object]] = {
            name: {"ansible_host": machine.address} for name, machine in booted.items()
        }
        # Of the two, node1 may set its governor and has the second engine, built there; node2 neither.
        hosts["node1"] |= {"node_agent_allow_governor": True, "engine_dllama": True}
        groups = {"nodes": ("node1", "node2")} | dict.fromkeys(
            ("orchestrator", "meter_bridge", "surgeon", "kiosk"), ("hub",)
        )
        children = {group: {"hosts": {name: hosts[name] for name in names}} for group, names in groups.items()}
        inventory = home / "inventory"
        (inventory / "group_vars").mkdir(parents=True)
        (inventory / "hosts.yml").write_text(
            yaml.safe_dump({"all": {"vars": {"ansible_user": "root"}, "children": {"lab": {"children": children}}}})
        )
        (inventory / "group_vars/all.yml").write_text(yaml.safe_dump(_variables(lab.checkout)))
        yield lab


def _copy_checkout(target: Path) -> None:
    """Copy what a release is made of: a file that somebody saves meanwhile would be a change of ours."""
    for name in ("shared", "node_agent", "meter_bridge", "surgeon", "orchestrator", "systemd", "demo"):
        shutil.copytree(ROOT / name, target / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target)


def _variables(checkout: Path) -> dict[str, object]:
    return {
        "lab_checkout": str(checkout),
        "lab_subnet": "10.77.0.0/24",
        "release_pip_args": "--no-index --find-links /srv/epi-factory/wheels",
        "engine_wheel": str(find_wheel()),
        "engine_dllama": False,
        "engine_dllama_repository": "/srv/epi-factory/dllama.git",  # GitHub's, fetched beforehand
        "node_agent_threads": 1,
        "surgeon_threads": 1,
        "surgeon_models": {"epi-demo-moe": f"{DEMO}/model"},
        "surgeon_corpora": {"demo": [f"{DEMO}/calibration/statements.txt"]},
        "surgeon_sanity_prompts": f"{DEMO}/sanity_prompts.jsonl",
        "surgeon_heldout_text": f"{DEMO}/heldout.txt",
        "orchestrator_task_dirs": [f"{DEMO}/tasks"],
        "meter_bridge_source": {"kind": "serial", "device": "/run/emulator/meter"},
        # No adapter here; the rule for it is written all the same.
        "meter_bridge_usb_vendor_id": "2e8a",
        "meter_bridge_usb_product_id": "000a",
    }
