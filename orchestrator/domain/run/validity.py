"""Is a measurement to be believed? Rules that yield PASS, FLAG or FAIL with a reason, per window, run and campaign.

Modelled on MLPerf Power / SPEC PTDaemon. A FAIL keeps the data and bars the result from the headline table; a FLAG is
printed beside it. Limits live in `WindowRules`. Not here: what else the nodes did inside
windows (`disturbances`).
"""

from collections.abc import Sequence

from orchestrator.domain.campaign.protocol import WindowRules
from orchestrator.domain.run.alignment import LagFit
from orchestrator.domain.run.energy import WindowEnergy
from orchestrator.domain.run.energy_register import EnergyRegisterCheck
from orchestrator.domain.run.findings import Finding, Verdict, fail, flag
from orchestrator.domain.run.records import RunInput
from shared.wire.node_jobs.activity import AgentActivity

_GAP_BEFORE_WINDOW_S = 10.0


def check_window(window: WindowEnergy, rules: WindowRules, where: str) -> list[Finding]:
    """Judge one measured window: coverage, length, sample interval, plausible power."""
    if window.total_joules is None:
        return [Finding(rule="coverage", verdict="FAIL", reason=window.reason, where=where)]
    found: list[Finding] = []
    seconds = window.duration_seconds
    least = rules.min_idle_s if window.label == "idle" else rules.min_duration_s
    if seconds < least:
        found.append(fail("duration", f"{seconds:.3g} s is shorter than {least:g} s", where))
    elif window.label != "idle" and seconds < rules.recommended_duration_s:
        reason = f"{seconds:.3g} s is shorter than the recommended {rules.recommended_duration_s:g} s"
        found.append(flag("duration", reason, where))
    if window.n_samples < rules.min_samples:
        found.append(fail("samples", f"{window.n_samples} samples, at least {rules.min_samples} are needed", where))
    elif seconds / window.n_samples > rules.max_sample_interval_s * 1.05:
        interval = seconds / window.n_samples
        limit = f"limit {rules.max_sample_interval_s:g} s"
        found.append(fail("sample interval", f"{interval:.3g} s on average, {limit}", where))
    for node, energy in window.nodes.items():
        if energy.avg_watts < 0:
            reason = f"{node} has negative power: is its current transformer the wrong way round?"
            found.append(fail("power sign", reason, where))
    return found


def check_lag(lag: LagFit) -> list[Finding]:
    """Judge the alignment: without a marker that shows, windows are not shifted and the edges are uncertain."""
    return [] if lag.accepted else [flag("lag", f"the meter's lag is unknown: {lag.reason}", "run")]


def check_surroundings(run: RunInput, windows: Sequence[WindowEnergy], names: Sequence[str]) -> list[Finding]:
    """Judge what happened before and in each window: settling time, and what the meter itself complained of."""
    found: list[Finding] = []
    rules = run.protocol.rules
    least_s = rules.min_gap_before_window_s
    if least_s is None:
        least_s = 0.0 if rules.shortened else _GAP_BEFORE_WINDOW_S
    for window, name in zip(windows, names, strict=True):
        ends = [other.end_utc_ns for other in windows if other.end_utc_ns <= window.start_utc_ns]
        if ends and window.start_utc_ns - max(ends) < least_s * 1e9:
            seconds = (window.start_utc_ns - max(ends)) / 1e9
            limit = f"{least_s:g} s are asked for"
            found.append(flag("gap_before_window", f"{seconds:.3g} s since the window before; {limit}", name))
        kinds = [e.kind for e in run.meter_events if window.start_utc_ns <= e.utc_ns < window.end_utc_ns]
        for kind in sorted(set(kinds)):
            found.append(flag("meter", f"the meter reported {kind} ({kinds.count(kind)} times)", name))
    return found


def check_software(run: RunInput) -> list[Finding]:
    """Judge whether the nodes of a run ran the same code and the same build of the engine."""
    code = {one.name: one.software for one in run.facts_before if one.software is not None}
    engines = {one.name: one.engine for one in run.facts_before if one.engine is not None}
    found: list[Finding] = []
    if len({build.code_sha256 for build in code.values()}) > 1:
        listed = ", ".join(f"{name}: {build}" for name, build in code.items())
        found.append(flag("software", f"the nodes run different versions of EPI Factory ({listed})", "run"))
    if len({build.same_results for build in engines.values()}) > 1:
        listed = ", ".join(f"{name}: {build.build} {build.ggml_commit}" for name, build in engines.items())
        found.append(flag("software", f"the nodes have different builds of llama.cpp ({listed})", "run"))
    return found


def check_steady_state(run: RunInput) -> list[Finding]:
    """Judge the wait before the first window: a ceiling that was reached ends the wait, not the run."""
    waited = run.steady_state
    if waited is None or waited.steady is not False:
        return []
    return [flag("steady", f"not steady after {waited.duration_s:.0f} s: {'; '.join(waited.reasons)}", "run")]


def agents_inside(run: RunInput) -> dict[str, AgentActivity]:
    """Return what each node's agent did inside windows, by a name for the interval.

    The root's agent serves the jobs between the windows, so what counts is what it did inside each workload; the others
    have nothing to do from the first window to the last.
    """
    root = {marker.node for marker in run.markers}
    inside = {
        f"{node}, all windows": _within_windows(run, node, one)
        for node, one in run.agent_activity.items()
        if node not in root
    }
    return inside | {f"root, {label}": one for label, one in run.window_agent_activity.items()}


def _within_windows(run: RunInput, node: str, over_all: AgentActivity) -> AgentActivity:
    """Return an agent's activity without its looks at the borders of windows, where it took any."""
    loads = [window.nodes[node] for window in run.window_loads if node in window.nodes]
    if not loads:
        return over_all
    end_utc_ns = over_all.start_utc_ns + round(sum(load.duration_s for load in loads) * 1e9)
    cpu_s = sum(load.agent_cpu_s for load in loads)
    return over_all.model_copy(update={"end_utc_ns": end_utc_ns, "agent_cpu_s": cpu_s})


def check_agent_quiet(run: RunInput) -> list[Finding]:
    """Judge whether the node agents kept silent inside windows: requests, share of CPU time, writes to disk."""
    found: list[Finding] = []
    windows = [window for window in run.windows if window.label != "marker"]
    for node, activity in run.agent_activity.items():
        clock = run.clocks.get(node)
        events = [(clock.ours(one.utc_ns) if clock else one.utc_ns, one.what) for one in activity.events]
        inside = [
            (what, window.label)
            for at_utc_ns, what in events
            for window in windows
            if window.start_utc_ns <= at_utc_ns < window.end_utc_ns
        ]
        if inside:
            reason = f"the agent was busy {len(inside)} times inside windows, first in {inside[0][1]}: {inside[0][0]}"
            found.append(flag("agent_quiet", reason, node))
    limit = run.protocol.rules.max_agent_cpu_share
    for where, activity in agents_inside(run).items():
        if activity.agent_cpu_share > limit:
            reason = f"the agent used {activity.agent_cpu_share:.2%} of a core, limit {limit:.2%}"
            found.append(flag("agent_quiet", reason, where))
        if activity.agent_written_bytes > 0:
            reason = f"the agent wrote {activity.agent_written_bytes} bytes to disk"
            found.append(flag("agent_quiet", reason, where))
    return found


def check_energy_registers(registers: Sequence[EnergyRegisterCheck], rules: WindowRules) -> list[Finding]:
    """Judge the agreement of the meter's energy register with the integral."""
    limit = rules.max_energy_register_disagreement
    return [
        flag("register", f"register and integral differ by {check.relative:+.1%}, limit {limit:.0%}", check.node)
        for check in registers
        if abs(check.relative) > limit
    ]


def check_run(run: RunInput) -> list[Finding]:
    """Judge what was known around the run: instrument, governor, throttling, temperature, ambient."""
    rules, found = run.protocol.rules, []
    if rules.shortened:
        found.append(flag("shortened", "window lengths are below the norm on purpose (demo)", "run"))
    uncertainty = run.instrument.relative_uncertainty
    if run.instrument.emulated:
        found.append(flag("emulated", "the power is emulated, not measured", "instrument"))
    elif uncertainty is None:
        found.append(flag("instrument", "the instrument's uncertainty is unknown", "instrument"))
    elif uncertainty > rules.max_instrument_uncertainty:
        reason = f"relative uncertainty {uncertainty:.2%} exceeds {rules.max_instrument_uncertainty:.2%}"
        found.append(flag("instrument", reason, "instrument"))
    if not run.instrument.emulated:
        if run.calibrated_utc_ns is None:
            found.append(flag("calibration", "when the instrument was calibrated is unknown", "instrument"))
        elif run.timestamp_utc_ns - run.calibrated_utc_ns > rules.max_calibration_age_days * 86_400e9:
            days = (run.timestamp_utc_ns - run.calibrated_utc_ns) / 86_400e9
            found.append(flag("calibration", f"the calibration is {days:.0f} days old", "instrument"))
    governor = run.environment.frequency_governor
    if governor is not None and governor != rules.required_governor:
        verdict: Verdict = "FLAG" if rules.shortened else "FAIL"
        reason = f"governor is {governor}, {rules.required_governor} is required"
        found.append(Finding(rule="governor", verdict=verdict, reason=reason, where="run"))
    ambient = run.environment.ambient_temp_c
    if ambient is not None and not rules.ambient_c[0] <= ambient <= rules.ambient_c[1]:
        limits = f"{rules.ambient_c[0]:g}..{rules.ambient_c[1]:g}"
        found.append(flag("ambient", f"{ambient:g} C is outside {limits} C", "run"))
    after = {facts.name: facts for facts in run.facts_after}
    for before in run.facts_before:
        later = after.get(before.name)
        if later is None:
            continue
        if before.throttled_bits is not None and later.throttled_bits is not None:
            new = later.throttled_bits & ~before.throttled_bits
            if new or later.throttled_bits & 0xF:
                found.append(fail("throttling", f"get_throttled went to {later.throttled_bits:#x}", before.name))
        if before.temperature_c is not None and later.temperature_c is not None:
            drift = later.temperature_c - before.temperature_c
            if abs(drift) > rules.max_temperature_drift_c:
                found.append(flag("temperature", f"changed by {drift:+.1f} C over the run", before.name))
    return found
