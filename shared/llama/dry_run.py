"""What llama.cpp would allocate for a model on several devices, by its own account, without allocating it.

Only the header of the model is read (`shared.checkpoints.hollow`). The devices are those of an RPC server on loopback,
so that placement and padding are those of a cluster. Compute buffers, the output buffer and the placement of layers are
exact; of the KV cache llama.cpp tells the sum. It takes milliseconds, but belongs in a process of its own: llama.cpp
aborts its process when it gives up. Not here: the weights, which follow from the header (`surgeon.footprint`).
"""

import os
import re
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from socket import AF_INET, SOCK_STREAM, create_connection, socket
from typing import Final

from shared.kernel.errors import BugError, InfrastructureError
from shared.llama.buffers import read_buffers, read_caches
from shared.llama.layer_split import layer_shares
from shared.llama.model import Context, Model, listening
from shared.llama.rpc import connect, serve
from shared.llama.sizes import batch_tokens, most_outputs

_LAYER: Final = re.compile(r"load_tensors: layer +(\d+) assigned to device (\w+)")
_GRAPH: Final = "graph_reserve: reserving a graph"
_SPLIT: Final = re.compile(r"## SPLIT #\d+: (\w+)[^#]*# \d+ inputs:?(.*)")
_INPUT: Final = re.compile(r"\[(\S+) \( *(\d+)([KM])\)\]")
_COPIES: Final = re.compile(r"sched copies = (\d+)")
_TELL_SPLITS: Final = "GGML_SCHED_DEBUG"
_START_S: Final = 10.0


@dataclass(frozen=True)
class Allocation:
    """What one context takes, in bytes; devices in their order."""

    device_of_layer: tuple[int, ...]
    """Of each layer, and of the output at the end."""
    compute: tuple[int, ...]
    host_compute: int
    """In the engine's own process."""
    output: int
    """In the engine's own process, as it is at load; grows to `most_outputs` rows of logits."""
    caches: tuple[tuple[int, int], ...]
    """(bytes, layers that share them) of each cache."""

    def cache_on(self, device: int) -> int:
        """Return the bytes of the caches on a device, never too few: layers of one cache are alike."""
        layers = sum(one == device for one in self.device_of_layer[:-1])
        return sum(-(-size // count) * min(layers, count) for size, count in self.caches if count)


class DryRun:
    """An RPC server of `n_devices` in this process; it lasts as long as the process."""

    def __init__(self, n_devices: int) -> None:
        """Start it.

        Raises:
            InfrastructureError: it does not come up.
        """
        os.environ[_TELL_SPLITS] = "1"
        endpoint = f"127.0.0.1:{_free_port()}"
        threading.Thread(target=serve, args=(endpoint, 1, n_devices), daemon=True).start()
        _wait_for(endpoint)
        self._devices = connect(endpoint, n_devices)

    def allocate(
        self, path: Path, layers: Sequence[int], *, context_tokens: int, sequences: int, cache_f32: bool = False,
        experts_per_token: int | None = None,
    ) -> Allocation:  # fmt: skip
        """Return what the model at `path` takes with so many layers on each of the first devices.

        Raises:
            DataError: llama.cpp refuses the file.
            InfrastructureError: llama.cpp refuses the context.
        """
        said: list[str] = []
        with listening(said.append), Model(
            path, devices=self._devices[: len(layers)], device_shares=layer_shares(layers), no_alloc=True,
            experts_per_token=experts_per_token,
        ) as model, Context(
            model, context_tokens=context_tokens, batch_tokens=batch_tokens(context_tokens), sequences=sequences,
            most_outputs=most_outputs(model.n_vocab, sequences), cache_f32=cache_f32,
        ):  # fmt: skip
            pass
        return _read("".join(said), len(layers))


def _read(text: str, n_devices: int) -> Allocation:
    placed = {int(match[1]): match[2] for match in _LAYER.finditer(text)}
    buffers = {one.device: one for one in read_buffers(text)}
    if not placed or "CPU" not in buffers:
        raise BugError("llama.cpp's log does not say where layers and buffers are", hint="another build? see its log")
    names = [f"RPC{number}" for number in range(n_devices)]
    surplus = _surplus(text)
    return Allocation(
        device_of_layer=tuple(names.index(placed[layer]) for layer in sorted(placed)),
        compute=tuple(buffers[name].compute - surplus[name] if name in buffers else 0 for name in names),
        host_compute=buffers["CPU"].compute, output=buffers["CPU"].output, caches=read_caches(text),
    )  # fmt: skip


def _surplus(text: str) -> Counter[str]:
    """Return the bytes of each device's compute buffer that only a dry run has.

    llama.cpp forgets to which device a layer's first operation belongs before it measures, so that this one runs on the
    device before and its result crosses over too: one more input, in every copy that pipelining keeps. The graph that
    is really run is among those it has split before, the last one.
    """
    graphs = [_inputs(part) for part in text.split(_GRAPH)[1:]]
    found = _COPIES.search(text)
    if len(graphs) < 3 or found is None:
        return Counter()
    measured, real = graphs[-3], graphs[-1]
    surplus: Counter[str] = Counter()
    for device, inputs in measured.items():
        for name, size in inputs.items():
            if name not in real.get(device, {}):
                surplus[device] += size * int(found[1])
    return surplus


def _inputs(graph: str) -> dict[str, dict[str, int]]:
    """Return what crosses over to each device in one graph, by name, in bytes (rounded down)."""
    sizes: dict[str, dict[str, int]] = {}
    for device, inputs in _SPLIT.findall(graph):
        crossing = sizes.setdefault(device, {})
        for name, size, unit in _INPUT.findall(inputs):
            crossing[name] = int(size) << (20 if unit == "M" else 10)
    return sizes


def _free_port() -> int:
    with socket(AF_INET, SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(endpoint: str) -> None:
    host, _, port = endpoint.rpartition(":")
    deadline = time.monotonic() + _START_S
    while True:
        try:
            create_connection((host, int(port)), timeout=1.0).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise InfrastructureError("the RPC server does not come up", where=endpoint) from error
            time.sleep(0.01)
