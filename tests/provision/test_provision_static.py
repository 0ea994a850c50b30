"""Everything about ansible/ and systemd/ that can be shown without a machine: lint, syntax, units, settings files.

A missing tool fails, naming what to install; nothing is skipped.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from meter_bridge.settings import BridgeSettings
from node_agent.settings import NodeSettings
from orchestrator.settings import OrchestratorSettings
from shared.kernel.settings import DaemonSettings, load_settings
from shared.service.daemon import LASTING
from surgeon.settings import SurgeonSettings

ROOT = Path(__file__).parents[2]
ANSIBLE = ROOT / "ansible"
SYSTEMD = ROOT / "systemd"
PLAYBOOKS = ("site.yml", "verify.yml", "upgrade.yml", "uninstall.yml")
DAEMONS = ("epi-node-agent", "epi-surgeon", "epi-meter-bridge", "epi-orchestrator")
MAX_EXPOSURE = 2.0

pytestmark = pytest.mark.timeout(600)


def tool(name: str, install: str) -> str:
    """Return a program of this environment or the PATH; fail with the line that installs it."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    assert found is not None, f"{name} is missing\n  do:    {install}"
    return found


def pip_tool(name: str) -> str:
    return tool(name, f"{sys.executable} -m pip install -e '.[provision]'")


def call(*argv: str, cwd: Path = ANSIBLE, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # A UTF-8 locale is all that Ansible insists on.
    environment = os.environ | {"PATH": path, "LC_ALL": "C.UTF-8", "ANSIBLE_NOCOLOR": "1"} | dict(env or {})
    return subprocess.run(argv, cwd=cwd, env=environment, capture_output=True, text=True, timeout=550)


def test_yamllint_is_clean() -> None:
    done = call(pip_tool("yamllint"), "--strict", ".")
    assert done.returncode == 0, done.stdout


def test_ansible_lint_production_profile_is_clean(tmp_path: Path) -> None:
    pip_tool("ansible")
    done = call(pip_tool("ansible-lint"), "--offline", "--profile", "production", "--nocolor", "-q",
                env={"XDG_CACHE_HOME": str(tmp_path)})  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_playbook_syntax(playbook: str) -> None:
    done = call(pip_tool("ansible-playbook"), playbook, "--syntax-check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_role_variable_is_described_and_has_its_roles_prefix() -> None:
    for role in sorted((ANSIBLE / "roles").iterdir()):
        described = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
        defaults = yaml.safe_load((role / "defaults/main.yml").read_text())
        assert set(defaults) <= set(described), f"{role.name}: not in argument_specs.yml"
        assert all(name.startswith(f"{role.name}_") for name in {*defaults, *described}), role.name


def test_every_file_mode_is_a_quoted_string() -> None:
    for path in ANSIBLE.rglob("*.yml"):
        for mode in re.findall(r"\bmode: *([^\s,}]+)", path.read_text()):
            assert re.fullmatch(r'"(0[0-7]{3}|\{\{.*)"?', mode), f"{path}: mode {mode}"


@pytest.fixture
def unit_root(tmp_path: Path) -> Path:
    """Lay the units into an empty system in which their programs exist."""
    for program in ("opt/epi-factory/current/bin/python", "opt/epi-factory/libexec/epi-kiosk", "usr/sbin/nft"):
        path = tmp_path / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o755)
    shutil.copytree(SYSTEMD, tmp_path / "etc/systemd/system")
    return tmp_path


def systemd_analyze() -> str:
    return tool("systemd-analyze", "sudo apt-get install -y systemd")


def test_systemd_analyze_verify_is_clean(unit_root: Path) -> None:
    units = sorted(str(path) for path in (unit_root / "etc/systemd/system").glob("*.service"))
    assert len(units) == len(DAEMONS) + 2
    done = call(systemd_analyze(), "verify", f"--root={unit_root}", "--recursive-errors=no", "--man=no", *units)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("unit", [*DAEMONS, "epi-firewall", "epi-kiosk"])
def test_exposure_of_a_unit_is_low(unit: str) -> None:
    done = call(
        systemd_analyze(), "security", "--offline=yes", "--no-pager", f"--threshold={MAX_EXPOSURE * 10:.0f}",
        str(SYSTEMD / f"{unit}.service"),
    )  # fmt: skip
    overall = re.search(r"Overall exposure level for \S+: (\d+\.\d)", done.stdout)
    assert overall is not None, done.stderr
    assert float(overall[1]) <= MAX_EXPOSURE, done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize("unit", DAEMONS)
def test_a_daemons_unit_has_user_state_token_and_watchdog(unit: str) -> None:
    text = (SYSTEMD / f"{unit}.service").read_text()
    part = unit.removeprefix("epi-")
    for line in (
        "Type=notify", f"User={unit}", f"StateDirectory=epi-factory/{part}",
        f"LoadCredential=token:/etc/epi-factory/credentials/{part}", "Restart=on-failure",
    ):  # fmt: skip
        assert line in text.splitlines()
    assert f"RestartPreventExitStatus={' '.join(map(str, sorted(LASTING)))}" in text.splitlines()
    assert "WatchdogSec=" in text
    assert ("KillMode=process" in text) == (unit == "epi-node-agent"), "only engines outlive their agent"


def render(out: Path, *hosts: str, **more: object) -> None:
    """Let Ansible write the settings files of the example lab, each host's into a folder of its own."""
    for host in hosts:
        (out / host).mkdir()
    variables = {
        "daemon_config_dir": f"{out}/{{{{ inventory_hostname }}}}", "lab_token_dir": f"{out}/tokens",
        "lab_tls_dir": f"{out}/tls", "ansible_become": False, "lab_restart": False,
        "ansible_python_interpreter": sys.executable, **more,
    }  # fmt: skip
    done = call(
        pip_tool("ansible-playbook"), "-i", "inventory/example", "--connection", "local", "--tags", "settings",
        "--skip-tags", "guard", "--limit", ":".join(("localhost", *hosts)), "-e", json.dumps(variables), "site.yml",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rendered")
    render(out, "node1", "display", "spark")
    return out


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        ("node1/node_agent.toml", NodeSettings),
        ("spark/surgeon.toml", SurgeonSettings),
        ("display/meter_bridge.toml", BridgeSettings),
        ("display/orchestrator.toml", OrchestratorSettings),
    ],
)
def test_settings_that_ansible_writes_fit_the_daemons(
    rendered: Path, file: str, settings: type[DaemonSettings]
) -> None:
    loaded = load_settings(settings, rendered / file)
    assert loaded.token_file is None, "the token comes as a systemd credential"
    assert loaded.tls_cert == Path("/etc/epi-factory/machine.pem")
    assert loaded.tls_key is not None and loaded.tls_key.is_relative_to("/run/credentials"), "the key too"
    assert loaded.state_dir.is_relative_to("/var/lib/epi-factory")


def test_the_lab_that_ansible_writes_fits_together(rendered: Path) -> None:
    node = load_settings(NodeSettings, rendered / "node1/node_agent.toml")
    orchestrator = load_settings(OrchestratorSettings, rendered / "display/orchestrator.toml")
    bridge = load_settings(BridgeSettings, rendered / "display/meter_bridge.toml")
    surgeon = load_settings(SurgeonSettings, rendered / "spark/surgeon.toml")

    assert [agent.name for agent in orchestrator.nodes] == ["node1", "node2", "node3", "node4"] == list(bridge.channels)
    assert orchestrator.nodes[0].url == f"https://{node.host}:{node.port}"
    assert orchestrator.surgeon.url == node.source_url == f"https://{surgeon.host}:{surgeon.port}"
    assert orchestrator.meter.url == f"https://{bridge.host}:{bridge.port}"
    pinned = {node.source_ca_file, *(agent.ca_file for agent in (*orchestrator.nodes, orchestrator.surgeon))}
    assert pinned | {orchestrator.meter.ca_file} == {Path("/etc/epi-factory/ca.pem")}
    assert node.worker_host == node.host == "192.168.50.11", "the engine listens on the cluster's interface only"
    credentials = Path("/run/credentials/epi-orchestrator.service")
    assert orchestrator.nodes[3].token_file == credentials / "agent_node4"
    unit = (SYSTEMD / "epi-orchestrator.service").read_text()
    assert "LoadCredential=agent:/etc/epi-factory/credentials/agents" in unit


def test_a_lab_may_speak_plain_http(tmp_path: Path) -> None:
    render(tmp_path, "node1", "display", lab_tls=False)
    node = load_settings(NodeSettings, tmp_path / "node1/node_agent.toml")
    orchestrator = load_settings(OrchestratorSettings, tmp_path / "display/orchestrator.toml")
    assert node.tls_cert is orchestrator.tls_key is node.source_ca_file is orchestrator.meter.ca_file is None
    assert node.source_url == orchestrator.surgeon.url
    assert orchestrator.surgeon.url.startswith("http://")
    assert not (tmp_path / "tls").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lab_subnet": ""}, "lab_subnet"),
        ({"surgeon_models": {}}, "surgeon_models"),
        ({"meter_bridge_channels": ["node1", "node9"]}, "meter_bridge_channels: node9"),
        ({"surgeon": []}, "group surgeon: 0 host(s)"),
        ({"orchestrator": ["display", "node1"]}, "group orchestrator: 2 host(s)"),
        ({"rename": "Node_One"}, "host Node_One"),
        ({"address": "node1.local"}, 'lab_address: node1 has "node1.local"'),
        ({"address": "192.168.50.12"}, "lab_address: two machines have the same one"),
        ({"engine_dllama_commit": "main"}, "engine_dllama_commit: main is not the full hash"),
        ({"lab": None}, "group lab"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_a_broken_inventory_is_refused_with_a_readable_message(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    inventory = yaml.safe_load((ANSIBLE / "inventory/example/hosts.yml").read_text())
    variables = yaml.safe_load((ANSIBLE / "inventory/example/group_vars/all.yml").read_text())
    lab = inventory["all"]["children"]["lab"]["children"]
    for key, value in change.items():
        match key:
            case "surgeon" | "orchestrator":
                assert isinstance(value, list)
                lab[key]["hosts"] = {name: {} for name in value}
            case "rename":
                lab["nodes"]["hosts"][value] = lab["nodes"]["hosts"].pop("node1")
            case "address":
                lab["nodes"]["hosts"]["node1"] = {"ansible_host": value}
            case "lab":
                inventory["all"]["children"] = {}
            case _:
                variables[key] = value
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))
    (tmp_path / "group_vars/all.yml").write_text(yaml.safe_dump(variables))

    done = call(pip_tool("ansible-playbook"), "-i", str(tmp_path), "site.yml")

    assert done.returncode != 0
    said = " ".join((done.stdout + done.stderr).split())
    assert message in said, said
    assert "unreachable=1" not in said, "it must be refused before any machine is touched"
    assert not (tmp_path / "tokens").exists()
