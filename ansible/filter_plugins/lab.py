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


def lab_agent(
    name: str, addresses: Mapping[str, str], port: int, token_prefix: str, ca_file: str | None
) -> dict[str, str | None]:
    """Return one entry of the orchestrator's `nodes`; without a CA it is plain HTTP."""
    scheme = "https" if ca_file else "http"
    return {
        "name": str(name), "url": f"{scheme}://{addresses[name]}:{port}", "token_file": f"{token_prefix}{name}",
        "ca_file": str(ca_file) if ca_file else None,
    }  # fmt: skip


def lab_certificate_names(hosts: Iterable[str], hostvars: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return name -> what a machine's certificate names: itself, its address, loopback, and its `lab_tls_names`."""
    hosts = [str(host) for host in hosts]
    addresses = lab_addresses(hosts, hostvars)
    return {
        host: list(
            dict.fromkeys(
                [host, addresses[host], "127.0.0.1", "localhost", *map(str, hostvars[host].get("lab_tls_names") or [])]
            )
        )
        for host in hosts
    }


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {
            "lab_addresses": lab_addresses, "lab_agent": lab_agent, "lab_certificate_names": lab_certificate_names,
        }  # fmt: skip
