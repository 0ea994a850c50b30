"""The steady-state gate and the governor."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node_agent.machine.governor import set_governor
from node_agent.machine.steady_gate import judge, sampler, temperature_slope, wait_steady
from shared.kernel.errors import ConfigurationError, InfrastructureError
from shared.wire.node_jobs.activity import AgentActivity, AgentEvent, activity_between
from shared.wire.node_jobs.host import SetGovernorParams, SteadyGateParams, SteadyGateSample

PARAMS = SteadyGateParams(min_s=0, max_s=60, span_s=60, max_slope_c_per_min=0.5, max_busy=0.05)


def samples(temperatures: list[float | None], busy: float = 0.0, step_s: float = 5.0) -> list[SteadyGateSample]:
    return [
        SteadyGateSample(utc_ns=int(n * step_s * 1e9), temperature_c=value, busy=busy)
        for n, value in enumerate(temperatures)
    ]


@settings(deadline=None)
@given(st.floats(-20, 20), st.floats(20, 80), st.integers(3, 30))
def test_the_slope_of_a_straight_line_is_found(slope: float, start: float, count: int) -> None:
    line = samples([start + slope * n * 5 / 60 for n in range(count)])
    assert temperature_slope(line) == pytest.approx(slope, abs=1e-6)


def test_steady_hot_and_busy_machines_are_told_apart() -> None:
    assert judge(samples([50.0, 50.1, 50.0, 49.9, 50.0]), PARAMS) == ()
    assert "changes by +6.00 C/min" in judge(samples([50.0, 50.5, 51.0, 51.5]), PARAMS)[0]
    assert judge(samples([50.0] * 4, busy=0.3), PARAMS) == ("CPUs are 30.0% busy, allowed are 5.0%",)
    assert len(judge(samples([60.0, 59.0, 58.0], busy=0.3), PARAMS)) == 2


def test_only_the_last_span_counts() -> None:
    heating_then_steady = samples([*(40.0 + n for n in range(10)), *[50.0] * 20])
    assert judge(heating_then_steady, PARAMS) == ()
    assert judge(heating_then_steady, PARAMS.model_copy(update={"span_s": 300})) != ()


def test_a_machine_without_a_thermometer_is_judged_by_its_load() -> None:
    assert judge(samples([None] * 5), PARAMS) == ()
    assert temperature_slope(samples([None, 50.0, None, 51.0])) is None


def test_drifting_power_is_not_steady() -> None:
    def powers(*values: float) -> list[SteadyGateSample]:
        return [
            sample.model_copy(update={"pmic_power_w": value})
            for sample, value in zip(samples([None] * len(values)), values, strict=True)
        ]

    assert judge(powers(4.0, 4.1, 4.0, 3.9, 4.0), PARAMS) == ()
    assert judge(powers(6.0, 5.0, 4.0), PARAMS) == ("power drifts by -40.0%, allowed are 5.0%",)


async def test_settling_ends_when_steady_and_gives_up_with_reasons() -> None:
    def machine(temperatures: Iterator[float]) -> "object":
        clock = 0

        async def sample() -> SteadyGateSample:
            nonlocal clock
            clock += 5_000_000_000
            return SteadyGateSample(utc_ns=clock, temperature_c=next(temperatures), busy=0.01)

        return sample

    def quiet(_fraction: float, _message: str) -> None:
        pass

    quick = SteadyGateParams(min_s=0, max_s=0.5, every_s=0.1, span_s=20)
    cooling = iter([60.0, 58.0, 56.0, *[55.0] * 100])
    result = await wait_steady(quick.model_copy(update={"max_s": 30.0}), machine(cooling), quiet)  # type: ignore[arg-type]
    assert result.steady and not result.reasons
    # Samples are 5 s apart: the last warm one, the third, is out of the 20 s span at the eighth.
    assert len(result.samples) == 8
    endless = iter([50.0 + n for n in range(1000)])
    result = await wait_steady(quick, machine(endless), quiet)  # type: ignore[arg-type]
    assert not result.steady and "changes by +12.00" in result.reasons[0]


async def test_this_machine_can_be_looked_at() -> None:
    sample = sampler()
    first, second = await sample(), await sample()
    assert 0 <= first.busy <= 1 and second.utc_ns > first.utc_ns


@pytest.fixture
def cpufreq(tmp_path: Path) -> Path:
    for name in ("policy0", "policy1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "scaling_governor").write_text("ondemand\n")
        (tmp_path / name / "scaling_available_governors").write_text("ondemand performance\n")
    return tmp_path


def test_the_governor_is_set_where_allowed(cpufreq: Path) -> None:
    result = set_governor(SetGovernorParams(), allowed=True, root=cpufreq)
    assert (result.before, result.after, result.changed) == ("ondemand", "performance", True)
    assert {p.read_text() for p in cpufreq.glob("*/scaling_governor")} == {"performance"}
    again = set_governor(SetGovernorParams(), allowed=False, root=cpufreq)
    assert not again.changed


def test_what_cannot_be_set_is_said(cpufreq: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="may not change it"):
        set_governor(SetGovernorParams(), allowed=False, root=cpufreq)
    with pytest.raises(ConfigurationError, match="no governor 'schedutil'"):
        set_governor(SetGovernorParams(governor="schedutil"), allowed=True, root=cpufreq)
    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigurationError, match="no CPU frequency governor"):
        set_governor(SetGovernorParams(), allowed=True, root=tmp_path / "none")
    (cpufreq / "policy1/scaling_governor").unlink()
    (cpufreq / "policy1/scaling_governor").symlink_to("/proc/version")
    with pytest.raises(InfrastructureError, match="cannot be set"):
        set_governor(SetGovernorParams(), allowed=True, root=cpufreq)


def test_activity_between_two_answers() -> None:
    def answer(end: int, cpu: float, written: int, engine: int | None, *events: int) -> AgentActivity:
        return AgentActivity(
            start_utc_ns=0, end_utc_ns=end, agent_cpu_s=cpu, agent_written_bytes=written, engine_written_bytes=engine,
            events=tuple(AgentEvent(utc_ns=at, what="x") for at in events),
        )  # fmt: skip

    before, after = answer(10**10, 1.0, 4096, 100, 5), answer(2 * 10**10, 1.01, 4096, 100, 5, 15 * 10**9)
    between = activity_between(before, after)
    assert (between.start_utc_ns, between.end_utc_ns) == (10**10, 2 * 10**10)
    assert between.agent_cpu_share == pytest.approx(0.001)
    assert (between.agent_written_bytes, between.engine_written_bytes) == (0, 0)
    assert [event.utc_ns for event in between.events] == [15 * 10**9]
    assert activity_between(answer(1, 0, 0, 500), answer(2, 0, 0, 3)).engine_written_bytes is None
