"""The playbooks on real (throw-away) Debian machines with systemd: needs root, debootstrap and a quarter of an hour."""

import os
import re
import time
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tomli_w

from tests.provision.labs import ROOT, Lab, throw_away_lab
from tests.provision.machines import CPUFREQ, Machine, missing_tools
from tests.provision.supplies import ENGINE_DEFAULTS

EMULATOR = "/opt/epi-factory/current/bin/epi meter emulate --link /run/emulator/meter --rate 10"
CAMPAIGN = "upgraded-on-the-way"
RESULTS = f"/var/lib/epi-factory/orchestrator/results/{CAMPAIGN}"
DAEMONS = ("epi-orchestrator", "epi-meter-bridge", "epi-surgeon")
TOKEN = "--token-file /etc/epi-factory/credentials/orchestrator"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    assert os.geteuid() == 0, "booting throw-away machines needs root"
    assert not missing_tools(), f"do: sudo apt-get install -y {' '.join(missing_tools())}"
    with throw_away_lab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


def test_a_lab_from_bare_machines(lab: Lab) -> None:
    """One story, in the order in which a user lives it; a machine boots once."""
    bare = {name: machine.listing() for name, machine in lab.machines.items()}

    check_mode_changes_nothing(lab, bare)
    lab.speak_tls(False)  # as labs before did, so that the upgrade meets one
    assert lab.play("site.yml").changed
    assert lab.play("site.yml").changed == [], "the second run changed something"

    start_emulated_meter(lab.hub)
    the_firewall_lets_only_the_lab_in(lab)
    the_governor_is_set_where_that_is_allowed(lab)
    distributed_llama_was_built_from_the_pinned_commit(lab)
    the_browser_shows_the_dashboard_in_its_sandbox(lab)
    jobs_run_in_the_sandbox_and_engines_outlive_a_crashed_agent(lab)
    daemons_run_under_their_units_restrictions(lab)
    no_token_stands_in_a_journal(lab)

    a_new_release_comes_between_two_runs_of_a_campaign(lab)
    the_upgrade_left_nothing_that_speaks_plain_http(lab)
    the_browser_shows_the_dashboard_in_its_sandbox(lab)
    no_token_stands_in_a_journal(lab)
    a_backup_brings_a_wiped_lab_back(lab)
    uninstall_leaves_nothing(lab, bare)


def check_mode_changes_nothing(lab: Lab, bare: dict[str, set[str]]) -> None:
    lab.play("site.yml", "--check")
    assert {name: machine.listing() for name, machine in lab.machines.items()} == bare
    assert not (lab.home / "inventory/tokens").exists()
    assert not (lab.home / "inventory/tls").exists()


def wait_for(what: str, check: Callable[[], Any], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < end, f"{what}: not after {timeout_s:.0f} s"
        time.sleep(1)


def start_emulated_meter(hub: Machine) -> None:
    hub.shell(
        "install -d -o epi-meter-bridge /run/emulator && systemd-run --quiet --unit=emulated-meter"
        f" --uid=epi-meter-bridge {EMULATOR} --channel node1=schedule:5x3.2,10x12 --channel node2=schedule:5x3.2,10x12"
    )
    wait_for("the emulated meter", lambda: hub.shell("ls /run/emulator/meter", check=False))


def the_firewall_lets_only_the_lab_in(lab: Lab) -> None:
    """No agent and no engine answers the controller, the dashboard does."""
    assert lab.reaches("hub", 8600)
    assert not lab.reaches("hub", 8601)
    assert not lab.reaches("node1", 8701)
    assert not lab.reaches("node1", 50052)


def the_governor_is_set_where_that_is_allowed(lab: Lab) -> None:
    """The files of the frequency domain are ours (a container has none); the unit's restrictions are the real ones."""
    governor = f"{CPUFREQ}/policy0/scaling_governor"
    node1, node2 = lab.machines["node1"], lab.machines["node2"]
    done = lab.result("node1", "set_governor", governor="performance")
    assert (done["before"], done["changed"]) == ("ondemand", True)
    assert node1.shell(f"cat {governor}") == "performance"
    inside = "nsenter --mount --target $(systemctl show -P MainPID epi-node-agent) test -w"
    writable = node1.shell(
        f"for path in {governor} /proc/sys/net/ipv4/ip_forward /etc; do {inside} $path && echo $path; done", check=False
    )
    assert writable.split() == [governor], "the unit opens more than the governor"

    refused = lab.job("node2", "set_governor", governor="performance")
    assert refused["status"] == "failed"
    assert "allow_governor" in str(refused["error"])
    node2.shell("systemd-tmpfiles --create /etc/tmpfiles.d/epi-governor.conf")  # what its next start would do
    assert node2.shell(f"cat {governor}").strip() == "performance"


def distributed_llama_was_built_from_the_pinned_commit(lab: Lab) -> None:
    commit = ENGINE_DEFAULTS["engine_dllama_commit"]
    folder = f"/opt/epi-factory/engines/distributed-llama-{commit[:7]}"
    node1 = lab.machines["node1"]
    assert node1.shell(f"git -C {folder} rev-parse HEAD").strip() == commit
    assert node1.shell(f"git -C {folder} status --porcelain --untracked-files=no") == "", "its source was changed"
    worker = lab.result("node1", "start_worker", engine="distributed-llama")
    assert node1.shell(f"readlink /proc/{worker['pid']}/exe").strip() == f"{folder}/dllama"
    assert lab.machines["node2"].shell("ls /opt/epi-factory/engines") == "", "not asked for there"


def the_browser_shows_the_dashboard_in_its_sandbox(lab: Lab) -> None:
    """No display here: the compositor draws into memory. User, system-call filter and namespaces are the unit's."""
    drop_in = "/run/systemd/system/epi-kiosk.service.d/headless.conf"
    headless = "WLR_BACKENDS=headless WLR_RENDERER=pixman WLR_LIBINPUT_NO_DEVICES=1"
    lab.hub.shell(
        f"mkdir -p $(dirname {drop_in}) && cat > {drop_in} && systemctl daemon-reload && systemctl start epi-kiosk",
        stdin="[Unit]\nConditionPathExistsGlob=\n[Service]\nPAMName=\nTTYPath=\nStandardInput=null\nUtmpIdentifier=\n"
        f"Environment={headless} XDG_RUNTIME_DIR=/run/epi-kiosk\n",
    )
    renderer = "pgrep -u epi-kiosk -f -- --type=renderer | head -1"
    try:
        # The dashboard's live feed is a WebSocket of the browser's: it stays open only after page, script and sign-in.
        feed = "ss -tnp state established dport = :8600 | grep chrom"
        wait_for("the dashboard's live feed", lambda: lab.hub.shell(feed, check=False), 180)
        audit = "tail -5 /var/lib/epi-factory/orchestrator/audit.jsonl"
        signed_in = '"method": "POST", "path": "/v1/session", "status": 200'
        wait_for("the browser's sign-in", lambda: signed_in in lab.hub.shell(audit), 60)
        outside = lab.hub.shell("readlink /proc/$(systemctl show -P MainPID epi-kiosk)/ns/user")
        assert lab.hub.shell(f"readlink /proc/$({renderer})/ns/user") != outside, "Chromium runs without its sandbox"
        assert "Seccomp:\t2" in lab.hub.shell(f"cat /proc/$({renderer})/status")
    except BaseException:
        print(lab.hub.shell("journalctl --no-pager -u epi-kiosk | tail -60", check=False))
        raise
    finally:
        lab.hub.shell(f"systemctl stop epi-kiosk; rm -r $(dirname {drop_in}); systemctl daemon-reload")


def jobs_run_in_the_sandbox_and_engines_outlive_a_crashed_agent(lab: Lab) -> None:
    node1 = lab.machines["node1"]
    prepared = lab.result("surgeon", "prepare", model="epi-demo-moe", quantization="Q4_K_M")
    observed = lab.result("surgeon", "observe", corpus="demo", model_sha256=prepared["f16_sha256"])
    assert observed["statistics_sha256"], "the eval callback runs under MemoryDenyWriteExecute"
    base = prepared["base_sha256"]
    lab.result("node1", "obtain", sha256=base, size_bytes=prepared["base_size_bytes"])
    endpoints = [lab.result(name, "start_worker")["endpoint"] for name in ("node1", "node2")]
    model = {"model_sha256": base, "context_tokens": 512, "sequences": 4, "threads": 1}
    lab.result("node1", "start_engine", workers=endpoints, **model)

    engine = "cat /var/lib/epi-factory/node-agent/pids/engine.pid"
    before = node1.shell(engine)
    crashed = node1.shell("systemctl show -P MainPID epi-node-agent").strip()
    node1.shell(f"kill -KILL {crashed}")

    def is_back() -> bool:
        pid, state = node1.shell("systemctl show -P MainPID -P ActiveState epi-node-agent").split()
        return pid not in (crashed, "0") and state == "active"

    wait_for("the agent's successor", is_back)
    assert node1.shell(engine) == before, "the engine did not survive"
    decoded = lab.result("node1", "decode", prompts=["The capital of France is"], tokens_each=8)
    assert "generated" in str(decoded)

    node1.shell("systemctl stop epi-node-agent")
    assert node1.shell("pgrep -u epi-node-agent", check=False) == "", "a clean stop ends the engines"
    node1.shell("systemctl start epi-node-agent")


def daemons_run_under_their_units_restrictions(lab: Lab) -> None:
    """What systemd says of the running units, and what the kernel says of their processes."""
    for machine, unit in [(lab.machines["node1"], "epi-node-agent"), *((lab.hub, daemon) for daemon in DAEMONS)]:
        overall = re.search(r"(\d+\.\d)", machine.shell(f"systemd-analyze security --no-pager {unit} | tail -1"))
        assert overall is not None
        status = machine.shell(f"cat /proc/$(systemctl show -P MainPID {unit})/status")
        print(f"{unit}: exposure {overall[1]} as it runs")
        assert float(overall[1]) <= 2.0
        assert {"Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000"} <= set(status.splitlines()), unit
        assert "Uid:\t0\t" not in status


def no_token_stands_in_a_journal(lab: Lab) -> None:
    for machine in lab.machines.values():
        said = machine.shell("journalctl --no-pager --quiet")
        assert not [part for part in ("orchestrator", "surgeon", "meter", "node1", "node2") if lab.token(part) in said]
        keys = [path.read_text().splitlines()[1] for path in (lab.home / "inventory").glob("tls/*.key")]
        assert not [key for key in keys if key in said]


def a_new_release_comes_between_two_runs_of_a_campaign(lab: Lab) -> None:
    """The campaign is paused after its present run, every machine gets the release, its results are whole."""
    spec = tomllib.loads((ROOT / "demo/demo.toml").read_text())["campaign"]
    spec |= {"id": CAMPAIGN, "configurations": "baseline,drop2_all", "repetitions": 3}
    spec["tasks"] |= {"questions": 8}
    spec["windows"] |= {"idle_s": 10}  # long enough for the upgrade to arrive in the middle
    lab.hub.shell("cat > /tmp/first.toml", stdin=tomli_w.dumps(spec))
    lab.hub.shell(
        f"epi campaign validate /tmp/first.toml && epi campaign start /tmp/first.toml --url {lab.url} {TOKEN}"
    )
    # Not the setup, which is no run: a pause would come before anything was measured.
    wait_for("the first run", lambda: any(run["step"] for run in lab.api(f"/v1/campaigns/{CAMPAIGN}")["runs"]), 600)
    refused = lab.play("site.yml", check=False)
    assert f"campaign {CAMPAIGN} is running" in refused.output

    project = lab.checkout / "pyproject.toml"
    project.write_text(re.sub(r'^version = "(.*)"', r'version = "\1.post1"', project.read_text(), flags=re.M))
    started_utc_ns = time.time_ns()
    lab.speak_tls(True)
    assert lab.play("upgrade.yml").changed
    versions = {agent["health"]["version"] for agent in lab.api("/v1/lab")["agents"]}
    assert len(versions) == 1
    assert versions.pop().endswith(".post1")
    going = ("created", "running")
    wait_for("the campaign's end", lambda: lab.api(f"/v1/campaigns/{CAMPAIGN}")["state"] not in going, 900)

    status = lab.api(f"/v1/campaigns/{CAMPAIGN}")
    assert status["state"] == "finished", status
    outcomes = [[attempt["outcome"] for attempt in run["attempts"]] for run in status["runs"]]
    assert outcomes == [["done"]] * 6, "a run was disturbed"
    restarts = [
        int(machine.shell(f"date +%s%N -d \"$(systemctl show -P ExecMainStartTimestamp {unit})\""))
        for machine, unit in [*((lab.hub, daemon) for daemon in DAEMONS),
                              *((lab.machines[name], "epi-node-agent") for name in ("node1", "node2"))]
    ]  # fmt: skip
    assert min(restarts) > started_utc_ns - 1_000_000_000, "a daemon still runs the old release"
    windows = [
        window for run in status["runs"]
        for window in lab.api(f"/v1/campaigns/{CAMPAIGN}/runs/{run['configuration']}/{run['repetition']}")["windows"]
    ]  # fmt: skip
    assert any(window["start_utc_ns"] > max(restarts) for window in windows), "nothing was measured after the upgrade"
    assert any(window["end_utc_ns"] < min(restarts) for window in windows), "nothing was measured before it"
    for window in windows:
        assert not any(window["start_utc_ns"] < moment < window["end_utc_ns"] for moment in restarts), window
    assert all(one["epi"] is not None for one in lab.api(f"/v1/campaigns/{CAMPAIGN}/results"))


def the_upgrade_left_nothing_that_speaks_plain_http(lab: Lab) -> None:
    """Every service is asked in clear and with the pinned CA; commands on a machine of the lab find the CA."""
    services = [("hub", 8600), ("hub", 8601), ("hub", 8801), ("node1", 8701), ("node2", 8701)]
    for name, port in services:
        address = f"{lab.machines[name].address}:{port}/openapi.json"
        assert lab.hub.python(_SPEAKS, address=address) == {"http": False, "https": True}, (name, port)
    assert CAMPAIGN in lab.hub.shell(f"epi campaign status --url {lab.url} {TOKEN}")
    meter = "--token-file /etc/epi-factory/credentials/meter-bridge"
    assert "connected" in lab.hub.shell(f"epi meter status --url https://{lab.hub.address}:8801 {meter}")
    for machine in lab.machines.values():
        kept = machine.shell("stat -c '%a %U' /etc/epi-factory/credentials/machine.key /etc/epi-factory/ca.pem")
        assert kept.split("\n")[:2] == ["600 root", "644 root"]
    assert lab.play("site.yml").changed == [], "a lab that speaks HTTPS is changed once more"


_SPEAKS = """
import httpx, ssl
trust = ssl.create_default_context(cafile="/etc/epi-factory/ca.pem")
def speaks(scheme):
    try:
        return httpx.get(scheme + "://" + given["address"], verify=trust, timeout=10).status_code == 200
    except httpx.TransportError:
        return False
answer = {scheme: speaks(scheme) for scheme in ("http", "https")}
"""


def a_backup_brings_a_wiped_lab_back(lab: Lab) -> None:
    """The commands of docs/operations.md, section 7; users have other numbers than before, as on a new card."""
    hub = lab.hub
    files = f"cd {RESULTS} && find . -type f -exec sha256sum {{}} + | sort -k2"
    before = hub.shell(files), lab.api(f"/v1/campaigns/{CAMPAIGN}"), lab.api(f"/v1/campaigns/{CAMPAIGN}/results")
    archive = hub.shell("mkdir -p /media/usb && epi-backup save /media/usb").strip()
    assert "all sound" in hub.shell(f"epi-backup check {archive}")
    refused = hub.shell(f"epi-backup restore {archive} 2>&1", check=False)
    assert "still running: epi-" in refused

    hub.shell("systemctl stop emulated-meter 'epi-*' && rm -r /var/lib/epi-factory")
    for number, unit in enumerate(DAEMONS, start=901):
        hub.shell(f"usermod --uid {number} {unit} && groupmod --gid {number} {unit}")
    hub.shell(f"systemctl start {' '.join(DAEMONS)}")
    assert lab.api("/v1/campaigns") == [], "it was not wiped"

    hub.shell(
        "systemctl stop 'epi-*' && mv /var/lib/epi-factory /var/lib/epi-factory.new"
        f" && epi-backup restore {archive} && systemctl start epi-firewall {' '.join(DAEMONS)}"
    )
    start_emulated_meter(hub)
    healthy = lab.play("verify.yml")
    assert "4 agents" in healthy.output
    assert "EMULATED" in healthy.output
    after = hub.shell(files), lab.api(f"/v1/campaigns/{CAMPAIGN}"), lab.api(f"/v1/campaigns/{CAMPAIGN}/results")
    assert after == before
    hub.shell("rm -r /var/lib/epi-factory.new; systemctl stop emulated-meter")  # ours, not the lab's


def leftovers(machine: Machine, bare: set[str]) -> set[str]:
    """Return what is on a machine that was not there when it was bare."""
    return machine.listing() - bare


def uninstall_leaves_nothing(lab: Lab, bare: dict[str, set[str]]) -> None:
    refused = lab.play("uninstall.yml", check=False)
    assert refused.code != 0
    assert "uninstall_data" in refused.output
    lab.play("uninstall.yml", "-e", "uninstall_data=delete")
    for name, machine in lab.machines.items():
        assert leftovers(machine, bare[name]) == set(), name
        assert "epi-" not in machine.shell("cat /etc/passwd /etc/group; systemctl list-unit-files"), name
        assert "epi_factory" not in machine.shell("nft list tables 2>/dev/null || true"), name
        assert "EPI" not in machine.shell("cat /etc/hosts"), name
