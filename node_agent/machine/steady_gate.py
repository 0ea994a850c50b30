"""The steady-state gate: wait until temperature, load and, where there is a PMIC, power have been steady for a while.

It stands beside the fixed waits of a campaign: a fixed wait is the same for every run, this one says whether it was
enough. Here: looking and judging. Not here: the power of the meter, which the orchestrator sees.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from node_agent.machine.host import cpu_times, pmic, temperature_c
from shared.kernel.clock import utc_ns
from shared.kernel.progress import Progress
from shared.kernel.slope import relative_drift, slope_per_s
from shared.wire.node_jobs.host import SteadyGateParams, SteadyGateResult, SteadyGateSample

Sampler = Callable[[], Awaitable[SteadyGateSample]]


def temperature_slope(samples: Sequence[SteadyGateSample]) -> float | None:
    """Return the slope of the temperature in degrees C a minute."""
    slope = slope_per_s([(sample.utc_ns, sample.temperature_c) for sample in samples])
    return None if slope is None else 60 * slope


def power_change(samples: Sequence[SteadyGateSample]) -> float | None:
    """Return the drift of the PMIC's power over the samples as a share of its mean."""
    return relative_drift([(sample.utc_ns, sample.pmic_power_w) for sample in samples])


def judge(samples: Sequence[SteadyGateSample], params: SteadyGateParams) -> tuple[str, ...]:
    """Return why the machine is not steady, judged by the samples of the last `span_s`; empty when it is.

    A machine that tells no temperature is judged by its load.
    """
    last = samples[-1].utc_ns
    recent = [sample for sample in samples if last - sample.utc_ns <= params.span_s * 1e9]
    reasons = []
    slope = temperature_slope(recent)
    if slope is not None and abs(slope) > params.max_slope_c_per_min:
        reasons.append(f"temperature changes by {slope:+.2f} C/min, allowed are {params.max_slope_c_per_min:.2f}")
    drift = power_change(recent)
    if drift is not None and abs(drift) > params.max_power_change:
        reasons.append(f"power drifts by {drift:+.1%}, allowed are {params.max_power_change:.1%}")
    busy = sum(sample.busy for sample in recent) / len(recent)
    if busy > params.max_busy:
        reasons.append(f"CPUs are {busy:.1%} busy, allowed are {params.max_busy:.1%}")
    return tuple(reasons)


async def wait_steady(params: SteadyGateParams, sample: Sampler, progress: Progress) -> SteadyGateResult:
    """Sample every `every_s` until the machine was steady for `span_s` and `min_s` passed, or `max_s` are over."""
    start = utc_ns()
    samples: list[SteadyGateSample] = []
    while True:
        await asyncio.sleep(params.every_s)
        samples.append(await sample())
        reasons = judge(samples, params)
        waited_s = (utc_ns() - start) / 1e9
        enough = waited_s >= params.min_s and samples[-1].utc_ns - samples[0].utc_ns >= params.span_s * 1e9
        if (enough and not reasons) or waited_s >= params.max_s:
            recent = [sample for sample in samples if samples[-1].utc_ns - sample.utc_ns <= params.span_s * 1e9]
            return SteadyGateResult(
                steady=not reasons, reasons=reasons, start_utc_ns=start, end_utc_ns=utc_ns(),
                slope_c_per_min=temperature_slope(recent), busy=sum(sample.busy for sample in recent) / len(recent),
                samples=tuple(samples),
            )  # fmt: skip
        progress(min(waited_s / params.max_s, 1.0), "; ".join(reasons) or "steady so far")


def sampler() -> Sampler:
    """Return a function that looks at this machine; its busy share is that since the previous sample."""
    previous = cpu_times()

    async def sample() -> SteadyGateSample:
        nonlocal previous
        power_w, _ = await pmic()
        now = cpu_times()
        busy = 0.0
        if now is not None and previous is not None and now[1] > previous[1]:
            busy = (now[0] - previous[0]) / (now[1] - previous[1])
        previous = now
        return SteadyGateSample(
            utc_ns=utc_ns(), temperature_c=temperature_c(), busy=min(max(busy, 0.0), 1.0), pmic_power_w=power_w
        )

    return sample
