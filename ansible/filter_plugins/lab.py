"""Filters about the machines of a lab: where they are, and how the orchestrator is told."""


def lab_addresses(hosts, hostvars):
    """Return name -> address of `hosts`: `lab_address`, or else `ansible_host`, or else an empty string."""
    found = {}
    for host in hosts:
        known = hostvars[host]
        found[host] = str(known.get("lab_address") or known.get("ansible_host") or "")
    return found


def lab_agent(name, addresses, port, token_prefix):
    """Return one entry of the orchestrator's `nodes`."""
    return {"name": str(name), "url": f"http://{addresses[name]}:{port}", "token_file": f"{token_prefix}{name}"}


class FilterModule:
    """What Ansible loads."""

    def filters(self):
        """Name the filters of this file."""
        return {"lab_addresses": lab_addresses, "lab_agent": lab_agent}
