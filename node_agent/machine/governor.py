"""The CPU frequency governor: read and, where the settings allow it, set."""

from pathlib import Path

from shared.kernel.errors import ConfigurationError, InfrastructureError
from shared.wire.node_jobs.host import SetGovernorParams, SetGovernorResult

CPUFREQ = Path("/sys/devices/system/cpu/cpufreq")


def set_governor(params: SetGovernorParams, *, allowed: bool, root: Path = CPUFREQ) -> SetGovernorResult:
    """Set the governor of every frequency domain (on a Pi 5 one for all cores).

    Raises:
        ConfigurationError: the machine has no such governor, or the settings forbid changing it.
        InfrastructureError: the kernel refuses, normally for want of rights.
    """
    policies = sorted(root.glob("policy*"))
    if not policies:
        raise ConfigurationError("this machine has no CPU frequency governor", where=str(root))
    before = sorted({(policy / "scaling_governor").read_text().strip() for policy in policies})
    if before == [params.governor]:
        return SetGovernorResult(before=params.governor, after=params.governor, changed=False)
    offered = (policies[0] / "scaling_available_governors").read_text().split()
    if params.governor not in offered:
        raise ConfigurationError(
            f"this machine has no governor {params.governor!r}", where=str(root), hint=f"it has {', '.join(offered)}"
        )
    if not allowed:
        raise ConfigurationError(
            f"the governor is {', '.join(before)} and this agent may not change it",
            where="allow_governor",
            hint="set allow_governor = true in the node's settings and give the agent's user the right to write it",
        )
    for policy in policies:
        try:
            (policy / "scaling_governor").write_text(params.governor)
        except OSError as error:
            raise InfrastructureError(
                f"the governor cannot be set: {error.strerror}", where=str(policy / "scaling_governor"),
                hint="the agent's user needs the right to write it; see docs/operations.md",
            ) from error  # fmt: skip
    after = sorted({(policy / "scaling_governor").read_text().strip() for policy in policies})
    return SetGovernorResult(before=", ".join(before), after=", ".join(after), changed=True)
