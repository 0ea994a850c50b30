"""The marker load: a process that steps one core on and off, so that the meter's lag can be fitted.

`python -m node_agent.machine.marker --on 0.5 --off 0.5 --cycles 2` prints one JSON line:
`{"start": ns, "end": ns, "on": [[ns, ns], ...]}`.
It begins and ends with off. It runs in a process of its own, so that the agent's own work stays out of the step.
"""

import argparse
import json
import time


def burn_until(deadline_ns: int) -> None:
    """Keep one core busy until the monotonic clock reads `deadline_ns`."""
    while time.monotonic_ns() < deadline_ns:
        for _ in range(200):
            pass


def step(on_s: float, off_s: float, cycles: int) -> dict[str, object]:
    """Run the steps and return when they were, in UTC nanoseconds."""
    start = time.time_ns()
    intervals: list[tuple[int, int]] = []
    for _ in range(cycles):
        time.sleep(off_s)
        begin = time.time_ns()
        burn_until(time.monotonic_ns() + int(on_s * 1e9))
        intervals.append((begin, time.time_ns()))
    time.sleep(off_s)
    return {"start": start, "end": time.time_ns(), "on": intervals}


def main() -> None:
    """Read the arguments, step the load and print when."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--on", type=float, required=True)
    parser.add_argument("--off", type=float, required=True)
    parser.add_argument("--cycles", type=int, required=True)
    arguments = parser.parse_args()
    print(json.dumps(step(arguments.on, arguments.off, arguments.cycles)), flush=True)


if __name__ == "__main__":
    main()
