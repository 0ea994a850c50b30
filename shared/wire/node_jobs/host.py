"""The machine under a node agent: facts, governor, waiting until it is steady."""

from typing import ClassVar, Literal

from pydantic import Field

from shared.kernel.build import SoftwareBuild
from shared.kernel.records import NodeName, Record, equals, is_absent
from shared.llama.build import EngineBuild


class SetGovernorParams(Record):
    """Set the governor of every CPU."""

    governor: Literal["performance", "ondemand", "schedutil", "conservative", "powersave"] = "performance"


class SetGovernorResult(Record):
    """Governor before and after; `changed` False when it was right already."""

    before: str
    after: str
    changed: bool


class SteadyGateParams(Record):
    """Wait until temperature and load are steady over the last `span_s` seconds, at least `min_s`, at most `max_s`."""

    min_s: float = Field(default=60.0, ge=0, le=3600, description="at least")
    max_s: float = Field(default=300.0, ge=0.1, le=7200, description="at most")
    span_s: float = Field(default=60.0, ge=0.1, le=3600, description="steady for so long")
    every_s: float = Field(default=5.0, ge=0.1, le=60, description="sampled every")
    max_slope_c_per_min: float = Field(default=0.5, ge=1e-3, le=1000, description="of the temperature")
    max_busy: float = Field(default=0.05, ge=1e-9, le=1, description="busy share of all CPUs, 0..1")
    max_power_change: float = Field(default=0.05, ge=1e-9, le=10, description="drift of the PMIC power in the span")


class SteadyGateSample(Record):
    """One look at the machine while waiting."""

    utc_ns: int
    temperature_c: float | None = None
    busy: float = Field(ge=0, le=1)
    pmic_power_w: float | None = None


class SteadyGateResult(Record):
    """`steady` False after `max_s`, with the reasons; the caller decides what it means."""

    former_names: ClassVar = {"settled": "steady"}

    steady: bool
    reasons: tuple[str, ...] = ()
    start_utc_ns: int
    end_utc_ns: int
    slope_c_per_min: float | None = None
    busy: float
    samples: tuple[SteadyGateSample, ...]


class BlinkParams(Record):
    """Blink for so long."""

    seconds: float = Field(default=10.0, ge=1, le=60)


class BlinkResult(Record):
    """Which LED blinked, by the kernel's name, for example ACT."""

    led: str


class DiskSpace(Record):
    """One mounted file system on a real device."""

    mount: str
    device: str
    total_bytes: int
    free_bytes: int


class NodeFacts(Record):
    """The answer of `GET /v1/facts`; what cannot be read is null, never invented."""

    name: NodeName
    board: str | None = None
    cpu_model: str | None = None
    n_cpus: int
    memory_bytes: int
    memory_limit_bytes: int | None = Field(
        default=None, exclude_if=is_absent, description="of the agent's control group; null: none"
    )
    reserved_memory_bytes: int = Field(
        default=0, ge=0, exclude_if=equals(0), description="what the system keeps, by the node's settings"
    )
    kernel: str
    python: str
    governor: str | None = None
    cpu_mhz: float | None = None
    temperature_c: float | None = None
    throttled_bits: int | None = Field(default=None, description="vcgencmd get_throttled")
    load_1min: float
    clock_offset_s: float | None = Field(default=None, description="this host minus true time, by chrony")
    engine_build: str | None = None
    software: SoftwareBuild | None = Field(default=None, description="what the agent runs; null: an earlier version")
    engine: EngineBuild | None = Field(default=None, description="llama.cpp as it is installed; null: not installed")
    disk_free_bytes: int
    cpu_max_mhz: float | None = None
    governors: tuple[str, ...] = Field(default=(), description="governors this machine offers")
    throttled_now: tuple[str, ...] | None = None
    throttled_since_boot: tuple[str, ...] | None = None
    supply_max_ma: int | None = Field(default=None, description="what the supply negotiated (Pi 5)")
    pmic_power_w: float | None = Field(default=None, description="sum of the PMIC's rails: a cross-check, not a meter")
    supply_v: float | None = Field(default=None, description="input voltage by the PMIC")
    disks: tuple[DiskSpace, ...] = ()
    utc_ns: int

    @property
    def usable_memory_bytes(self) -> int:
        """Return what engines and workers may take together."""
        return max(min(self.memory_bytes, self.memory_limit_bytes or self.memory_bytes) - self.reserved_memory_bytes, 0)
