"""Where a one-machine lab keeps its files, and the settings file of each of its processes.

Everything lies under `OUT/.lab`: tokens, settings, state, logs. Ports are chosen free at first start and kept.
"""

import socket
from dataclasses import dataclass
from pathlib import Path

import tomli_w
from pydantic import Field

from shared.files.atomic import write_file
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import NodeName, Record
from shared.kernel.settings import load_settings
from shared.service.auth import make_token

_SOCKET_PATH_LIMIT = 60
"""A Unix socket's path may have 107 bytes; the lab adds up to 45 of its own."""


_BEHIND_THE_DISPLAY = ("nice", "-n", "10")
"""In a lab nodes and surgeon are machines of their own. On this one their work stands behind meter and dashboard, or
samples reach the screen late whenever all cores compute."""


class DemoSettings(Record):
    """`demo.toml`, section `[lab]`: what the embedded default lab is made of. Paths are relative to the file."""

    nodes: tuple[NodeName, ...] = ("node1", "node2", "node3", "node4")
    scorers: tuple[NodeName, ...] = Field(default=(), description="node agents that the emulated meter does not see")
    threads: int = Field(default=1, ge=1)
    model: str
    model_dir: Path
    corpus: str
    corpus_files: tuple[Path, ...]
    models: dict[str, Path] = Field(default_factory=dict, description="more models of the surgeon, by name")
    questions: dict[str, Path] = Field(default_factory=dict, description="question files for searches, by name")
    sanity_prompts: Path
    heldout_text: Path
    task_dirs: tuple[Path, ...]
    workload_prompts: Path
    meter_rate_hz: float = Field(default=10.0, gt=0, le=50)
    idle_w: float = Field(default=3.0, ge=0, description="emulated power of an idle node")
    core_w: float = Field(default=4.0, ge=0, description="emulated power of one busy core")
    artifact_quota_bytes: int | None = Field(default=None, ge=1, description="room for models on each node")
    reserved_memory_bytes: dict[NodeName, int] = Field(
        default_factory=dict, description="memory a node keeps from engines, where it is to look smaller than it is"
    )
    hosts: dict[NodeName, str] = Field(default_factory=dict, description="address of a part; loopback where none is")
    namespaces: dict[NodeName, str] = Field(
        default_factory=dict, description="network namespace that a part runs in (needs root); none where none is"
    )

    @property
    def agents(self) -> tuple[NodeName, ...]:
        """All node agents."""
        return self.nodes + self.scorers


@dataclass(frozen=True)
class Part:
    """One process of the lab."""

    name: str
    command: tuple[str, ...]
    url: str | None
    prefix: tuple[str, ...] = ()
    """What the interpreter is started by, for example `ip netns exec NAME`; it must exec, so that the pid stays."""


@dataclass(frozen=True)
class LocalLab:
    """A one-machine lab under `out`."""

    out: Path

    @property
    def home(self) -> Path:
        """Folder of everything but results."""
        return self.out / ".lab"

    @property
    def pid_file(self) -> Path:
        """The supervisor's pid."""
        return self.home / "supervisor.pid"

    @property
    def log_dir(self) -> Path:
        """One log file a process."""
        return self.home / "logs"

    @property
    def meter_link(self) -> Path:
        """The emulator's end of the serial line, under a stable name."""
        return self.home / "meter.tty"

    @property
    def specs_dir(self) -> Path:
        """Campaign specs that can be started by name."""
        return self.home / "specs"

    def token_file(self, part: str) -> Path:
        """File of a part's bearer token."""
        return self.home / "tokens" / part

    def config_file(self, part: str) -> Path:
        """Settings file of a part."""
        return self.home / "config" / f"{part}.toml"

    def token(self, part: str) -> str:
        """Return a part's token."""
        return self.token_file(part).read_text().strip()

    def node_pids(self, node: str) -> Path:
        """Folder in which a node agent keeps the pid files of its engine processes."""
        return self.home / "state" / node / "pids"

    def prepare(self, demo: DemoSettings) -> None:
        """Make folders, tokens (once) and settings files.

        Raises:
            ConfigurationError: the path is too long for Unix sockets.
        """
        if len(str(self.home)) > _SOCKET_PATH_LIMIT:
            raise ConfigurationError(
                f"the path has {len(str(self.home))} characters, Unix sockets allow {_SOCKET_PATH_LIMIT}",
                where=str(self.home), hint="choose a shorter --out",
            )  # fmt: skip
        for folder in (self.home / "tokens", self.home / "config", self.home / "state", self.log_dir, self.specs_dir):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        parts = ["orchestrator", "surgeon", "meter", *demo.agents]
        for part in parts:
            self._make_token(part)
        ports = _free_ports(len(parts) + len(demo.agents))
        port_of = dict(zip(parts, ports, strict=False))
        worker_port_of = dict(zip(demo.agents, ports[len(parts) :], strict=True))
        for part, settings in self._settings(demo, port_of, worker_port_of).items():
            write_file(self.config_file(part), tomli_w.dumps(settings))

    def parts(self, demo: DemoSettings) -> list[Part]:
        """Return the lab's processes in the order they are started."""
        found = [Part("emulator", tuple(_emulator_command(self, demo)), None)]
        modules = {"meter": "meter_bridge", "surgeon": "surgeon", "orchestrator": "orchestrator"}
        for part in ("meter", "surgeon", *demo.agents, "orchestrator"):
            module = modules.get(part, "node_agent")
            command = ("-m", module, "--config", str(self.config_file(part)))
            namespace = demo.namespaces.get(part)
            prefix: tuple[str, ...] = () if namespace is None else ("ip", "netns", "exec", namespace)
            if part in demo.agents or part == "surgeon":
                prefix += _BEHIND_THE_DISPLAY
            found.append(Part(part, command, self.url(part), prefix))
        return found

    def url(self, part: str) -> str:
        """Return the address of a part."""
        address = load_settings(_Address, self.config_file(part))
        return f"http://{address.host}:{address.port}"

    def _make_token(self, part: str) -> None:
        path = self.token_file(part)
        if not path.exists():
            write_file(path, make_token() + "\n", mode=0o600, overwrite=False)

    def _settings(
        self, demo: DemoSettings, port_of: dict[str, int], worker_port_of: dict[NodeName, int]
    ) -> dict[str, dict[str, object]]:
        def host(part: str) -> str:
            return demo.hosts.get(part, "127.0.0.1")

        def common(part: str) -> dict[str, object]:
            return {
                "name": part, "host": host(part), "port": port_of[part],
                "token_file": str(self.token_file(part)), "state_dir": str(self.home / "state" / part),
            }  # fmt: skip

        def address(part: str) -> dict[str, object]:
            return {
                "name": part,
                "url": f"http://{host(part)}:{port_of[part]}",
                "token_file": str(self.token_file(part)),
            }

        settings: dict[str, dict[str, object]] = {
            "surgeon": common("surgeon")
            | {
                "models": {demo.model: str(demo.model_dir), **{name: str(path) for name, path in demo.models.items()}},
                "questions": {name: {"path": str(path)} for name, path in demo.questions.items()},
                "corpora": {demo.corpus: [str(path) for path in demo.corpus_files]},
                "sanity_prompts": str(demo.sanity_prompts),
                "heldout_text": str(demo.heldout_text),
            },
            "meter": common("meter")
            | {
                "channels": list(demo.nodes),
                "source": {"kind": "serial", "device": str(self.meter_link)},
                "instrument": {"measurement_point": "emulated: CPU time of each node's engine processes"},
            },
            "orchestrator": common("orchestrator")
            | {
                "nodes": [address(node) for node in demo.nodes],
                "scorers": [address(scorer) for scorer in demo.scorers],
                "surgeon": address("surgeon"),
                "meter": address("meter"),
                "results_dir": str(self.out),
                "specs_dir": str(self.specs_dir),
                "task_dirs": [str(path) for path in demo.task_dirs],
                "workload_prompts": str(demo.workload_prompts),
            },
        }
        for node in demo.agents:
            settings[node] = common(node) | {
                "worker_host": host(node),
                "worker_port": worker_port_of[node],
                "threads": demo.threads,
                "source_url": f"http://{host('surgeon')}:{port_of['surgeon']}",
                "source_token_file": str(self.token_file("surgeon")),
            }
            if node in demo.reserved_memory_bytes:
                settings[node]["reserved_memory_bytes"] = demo.reserved_memory_bytes[node]
            if demo.artifact_quota_bytes is not None:
                settings[node]["artifact_quota_bytes"] = demo.artifact_quota_bytes
        return settings


class _Address(Record):
    """The two keys of a settings file that make its address; the others are the part's own business."""

    model_config = Record.model_config | {"extra": "ignore"}

    host: str
    port: int


def _emulator_command(lab: LocalLab, demo: DemoSettings) -> list[str]:
    command = ["-m", "shared.cli", "meter", "emulate", "--link", str(lab.meter_link), "--rate", str(demo.meter_rate_hz)]
    for node in demo.nodes:
        command += ["--channel", f"{node}={lab.node_pids(node)}"]
    return [*command, "--idle-w", str(demo.idle_w), "--core-w", str(demo.core_w)]


def _free_ports(count: int) -> list[int]:
    """Return ports that are free on loopback now; all are held at once so that none comes twice."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def load_demo(path: Path) -> DemoSettings:
    """Read `demo.toml` and make its paths absolute.

    Raises:
        ConfigurationError: unreadable, or a field at fault.
    """
    settings = load_settings(_DemoFile, path).lab
    base = path.resolve().parent

    def absolute(*paths: Path) -> tuple[Path, ...]:
        return tuple(base / one for one in paths)

    return settings.model_copy(
        update={
            "model_dir": base / settings.model_dir,
            "models": {name: base / path for name, path in settings.models.items()},
            "questions": {name: base / path for name, path in settings.questions.items()},
            "corpus_files": absolute(*settings.corpus_files),
            "sanity_prompts": base / settings.sanity_prompts,
            "heldout_text": base / settings.heldout_text,
            "task_dirs": absolute(*settings.task_dirs),
            "workload_prompts": base / settings.workload_prompts,
        }
    )


class _DemoFile(Record):
    """`demo.toml`: `[lab]` for the processes, `[campaign]` for the spec (read elsewhere)."""

    model_config = Record.model_config | {"extra": "ignore"}

    lab: DemoSettings
