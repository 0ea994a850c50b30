"""Filters about the machines of a lab: where they are, and how the orchestrator is told."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any


def lab_addresses(hosts: Iterable[str], hostvars: Mapping[str, Any]) -> dict[str, str]:
    """Return name -> address of `hosts`: `lab_address`, or else `ansible_host`, or else an empty string."""
    found = {}
    for host in hosts:
        known = hostvars[host]
        found[host] = str(known.get("lab_address") or known.get("ansible_host") or "")
    return found


def lab_agent(name: str, addresses: Mapping[str, str], port: int, token_prefix: str) -> dict[str, str]:
    """Return one entry of the orchestrator's `nodes`."""
    return {"name": str(name), "url": f"http://{addresses[name]}:{port}", "token_file": f"{token_prefix}{name}"}


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {"lab_addresses": lab_addresses, "lab_agent": lab_agent}
