"""How llama.cpp's layers are shared out over devices: which device holds how many, and in which order they stand.

Pure arithmetic, so that what a plan takes on each node can be said before anything runs. Not here: the devices.
"""

from collections.abc import Sequence


def layers_by_memory(n_layers: int, memory: Sequence[int]) -> list[int]:
    """Return how many layers each device gets, in proportion to its memory (largest remainders, earlier ones first).

    Total, not free memory decides: machines of one kind then share evenly, whatever else they hold at the moment.
    """
    total = sum(memory)
    if not memory:
        return []
    counts = [n_layers * size // total for size in memory]
    remainders = [n_layers * size % total for size in memory]
    order = sorted(range(len(memory)), key=lambda device: (-remainders[device], device))
    for device in order[: n_layers - sum(counts)]:
        counts[device] += 1
    return counts


def layer_shares(counts: Sequence[int]) -> list[float]:
    """Return llama.cpp's `tensor_split` that puts `counts` layers on the devices, the output matrix on the last one.

    llama.cpp gives unit i of n_layers + 1 (the last one is the output) to the first device whose cumulative share
    exceeds i / (n_layers + 1). Boundaries half a unit below that are safe from rounding. With equal shares, 4 layers
    on 4 devices would be split 2, 1, 1, 0.
    """
    shares: list[float] = []
    placed = 0.0
    units = 0
    for count in counts[:-1]:
        units += count
        boundary = max(units - 0.5, 0.0)
        shares.append(boundary - placed)
        placed = boundary
    return [*shares, sum(counts) + 1 - placed] if counts else []


def local_last(endpoints: Sequence[str], local: str) -> list[str]:
    """Return the endpoints with this machine's own worker last.

    The last device holds the output matrix and returns the logits, which are by far the largest thing that comes back
    (600 kB a token for a vocabulary of 151,936): they should not cross the net.
    """
    return [*(endpoint for endpoint in endpoints if endpoint != local), *([local] if local in endpoints else [])]


def root_last(n_nodes: int) -> list[int]:
    """Return the positions of nodes (0 is the root) in the order in which their devices stand."""
    return [*range(1, n_nodes), 0]
