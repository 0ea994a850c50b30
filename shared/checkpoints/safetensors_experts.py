"""Experts in Hugging Face checkpoints: which tensors are theirs, whatever they are quantised as, and the model's facts.

Known namings: Qwen3-MoE and Qwen2-MoE (`mlp.gate`, `mlp.experts.J.*`), Mixtral (`block_sparse_moe.gate`,
`block_sparse_moe.experts.J.w1|w2|w3`), and stacked experts (`experts.gate_up_proj` [E, ...], `experts.down_proj`).
Whatever stands behind an expert's number is that expert's: the scales and zero points of FP8, INT4 (GPTQ, AWQ,
compressed-tensors) and NVFP4 too. What stands behind a stacked matrix's name is cut where its first size is the number
of experts, and stays where it is one number for all; anything else under the name of experts or routers is refused.

Not here: surgery on these checkpoints (`safetensors_surgery`).
"""

import json
import re
from collections.abc import Mapping
from typing import Final

from shared.checkpoints.base import CheckpointInfo, Range
from shared.checkpoints.safetensors import Checkpoint, TensorEntry
from shared.kernel.errors import ConfigurationError, DataError

COUNT_KEYS: Final = {
    "Qwen3MoeForCausalLM": "num_experts",
    "Qwen2MoeForCausalLM": "num_experts",
    "MixtralForCausalLM": "num_local_experts",
}
"""Supported classes, and where their config.json has the number of experts."""
_BLOCK: Final = r"model\.layers\.(\d+)\.(?:mlp|block_sparse_moe)\."
NUMBERED: Final = re.compile(rf"({_BLOCK}experts\.)(\d+)(\..+)")
STACKED: Final = re.compile(rf"{_BLOCK}experts\.(gate_up_proj|gate_proj|up_proj|down_proj)([._]\w+)?")
ROUTER: Final = re.compile(rf"{_BLOCK}gate\.weight")
_SOUNDS_LIKE: Final = re.compile(r"(?<!shared_)expert|\.gate\.|router")
_PLAIN: Final = frozenset({"F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
"""Types whose matrices have the shape that config.json tells; others are packed."""
_ROWS: Final = {"gate_proj": "gate", "up_proj": "gate", "w1": "gate", "w3": "gate", "down_proj": "down", "w2": "down"}


def describe(checkpoint: Checkpoint) -> CheckpointInfo:
    """Return the facts of a Mixture-of-Experts checkpoint.

    Raises:
        ConfigurationError: a dense model, or an architecture this project does not cut.
        DataError: config and tensors contradict each other.
    """
    config_path = str(checkpoint.path / "config.json")
    architecture = checkpoint.architecture
    if architecture not in COUNT_KEYS:
        raise ConfigurationError(
            f"the architecture {architecture or '(none)'!r} is not supported", where=config_path,
            hint=f"supported: {', '.join(sorted(COUNT_KEYS))}",
        )  # fmt: skip
    n_experts = checkpoint.integer(COUNT_KEYS[architecture])
    active = checkpoint.integer("num_experts_per_tok")
    if active > n_experts:
        raise DataError(f"{active} experts per token of {n_experts}", where=config_path)
    tensors = checkpoint.tensors()
    layers = moe_layers(tensors)
    if not layers:
        raise ConfigurationError("a dense model: there are no experts to operate on", where=str(checkpoint.path))
    _check_experts(tensors, layers, n_experts, checkpoint)
    return CheckpointInfo(
        format="safetensors", architecture=architecture, n_layers=len(layers), n_experts=n_experts,
        experts_per_token=active, size_bytes=sum(file.size_bytes for file in checkpoint.files),
        quantization=str(checkpoint.config.get("torch_dtype") or checkpoint.config.get("dtype") or ""),
    )  # fmt: skip


def _sizes(checkpoint: Checkpoint) -> tuple[int, int] | None:
    """Return how wide the hidden state and an expert are, None where config.json does not say it."""
    inner = "intermediate_size" if checkpoint.architecture == "MixtralForCausalLM" else "moe_intermediate_size"
    hidden, width = checkpoint.config.get("hidden_size"), checkpoint.config.get(inner)
    return (hidden, width) if isinstance(hidden, int) and isinstance(width, int) else None


def _check_shape(tensor: TensorEntry, hidden: int, inner: int) -> None:
    """Compare an expert's matrix or a router with config.json.

    Raises:
        DataError: they contradict each other.
    """
    expected: tuple[int, ...] | None = None
    if match := NUMBERED.fullmatch(tensor.name):
        part = _ROWS.get(match[4].removeprefix(".").removesuffix(".weight"))
        expected = {"gate": (inner, hidden), "down": (hidden, inner)}.get(part or "")
    elif (match := STACKED.fullmatch(tensor.name)) and match[3] in (None, ".weight"):
        _input_first(tensor, hidden, inner)
    elif ROUTER.fullmatch(tensor.name):
        expected = (tensor.shape[0], hidden)
    if expected is not None and tensor.shape != expected:
        raise DataError(
            f"{tensor.name!r} has the shape {list(tensor.shape)}, config.json says {list(expected)}",
            where=str(tensor.file),
        )  # fmt: skip


def moe_layers(tensors: Mapping[str, TensorEntry]) -> tuple[int, ...]:
    """Return the numbers of the layers with a router, ascending."""
    return tuple(sorted(int(match[1]) for name in tensors if (match := ROUTER.fullmatch(name))))


def _check_experts(
    tensors: Mapping[str, TensorEntry], layers: tuple[int, ...], n_experts: int, checkpoint: Checkpoint
) -> None:
    parts: dict[tuple[int, str], set[int]] = {}
    stacked: dict[int, int] = {}
    sizes = _sizes(checkpoint)
    for name, tensor in tensors.items():
        layer = layer_of(tensor, n_experts)
        if layer is None:
            continue
        if sizes is not None and tensor.dtype in _PLAIN:
            _check_shape(tensor, *sizes)
        if layer not in layers:
            raise DataError(f"layer {layer} has experts but no router", where=str(tensor.file))
        if match := NUMBERED.fullmatch(name):
            parts.setdefault((layer, match[4]), set()).add(int(match[3]))
            continue
        if not tensor.shape or tensor.shape[0] != n_experts:
            raise DataError(
                f"{name!r} has the shape {list(tensor.shape)}, config.json says {n_experts} experts",
                where=str(tensor.file),
            )
        match = STACKED.fullmatch(name)
        stacked[layer] = stacked.get(layer, 0) + (match is not None and match[3] in (None, ".weight"))
    for layer in layers:
        mine = [ids for (at, _), ids in parts.items() if at == layer]
        if not mine and stacked.get(layer, 0) < 2:
            raise DataError(f"layer {layer} has a router but no experts", where=str(checkpoint.path))
    for (layer, part), ids in parts.items():
        if ids != set(range(n_experts)):
            raise DataError(
                f"layer {layer} has {len(ids)} of {n_experts} experts' {part[1:]}", where=str(checkpoint.path)
            )


def layer_of(tensor: TensorEntry, n_experts: int) -> int | None:
    """Return the layer of a tensor that is one expert's or has one entry an expert, None for any other tensor.

    Raises:
        ConfigurationError: it sounds like experts' or routers', and no rule says how it is cut.
    """
    name = tensor.name
    if match := NUMBERED.fullmatch(name):
        return int(match[2])
    if match := ROUTER.fullmatch(name) or STACKED.fullmatch(name):
        if tensor.shape[:1] == (n_experts,) or ROUTER.fullmatch(name) or match[3] in (None, ".weight"):
            return int(match[1])
        if tensor.shape in ((), (1,)):
            return None
    elif not _SOUNDS_LIKE.search(name):
        return None
    raise ConfigurationError(
        f"the tensor {name!r} {list(tensor.shape)} sounds like experts' or routers', and no rule says how it is cut",
        where=str(tensor.file),
    )  # fmt: skip


def check_settings(checkpoint: Checkpoint) -> None:
    """Refuse settings that name experts by number: they would name others after a cut.

    Raises:
        ConfigurationError: there are some.
    """
    found = re.search(r"experts\\*\.\d+[^\"]*", json.dumps(checkpoint.config))
    if found is not None:
        raise ConfigurationError(
            f"config.json names single experts ({found[0]}), which have other numbers after a cut",
            where=str(checkpoint.path / "config.json"), hint="name them by a pattern for all experts",
        )  # fmt: skip


def transposed_tensors(checkpoint: Checkpoint, hidden: int, inner: int) -> frozenset[str]:
    """Return the names of stacked matrices with their input first: [E, in, out], as some libraries write them.

    transformers has [E, out, in] for the classes that are supported. Where both are one shape, a matrix lies as those
    of which it can be told.

    Raises:
        DataError: a shape that config.json does not tell.
    """
    stacked = [
        one
        for one in checkpoint.tensors().values()
        if (match := STACKED.fullmatch(one.name)) and match[3] in (None, ".weight")
    ]
    found = {one.name: _input_first(one, hidden, inner) for one in stacked}
    in_doubt = True in found.values() and False not in found.values()
    return frozenset(name for name, first in found.items() if (in_doubt if first is None else first))


def _input_first(tensor: TensorEntry, hidden: int, inner: int) -> bool | None:
    """Tell whether a stacked matrix is [E, in, out]; None where that is the shape of [E, out, in].

    Raises:
        DataError: neither is the shape that config.json tells.
    """
    match = STACKED.fullmatch(tensor.name)
    assert match is not None
    wide = 2 * inner if match[2] == "gate_up_proj" else inner
    usual = (hidden, wide) if match[2] == "down_proj" else (wide, hidden)
    if tensor.shape[1:] not in (usual, usual[::-1]):
        raise DataError(
            f"{tensor.name!r} has the shape {list(tensor.shape)}, config.json says {hidden} wide and {inner} inside",
            where=str(tensor.file),
        )  # fmt: skip
    return None if usual == usual[::-1] else tensor.shape[1:] != usual


def routers(checkpoint: Checkpoint) -> list[tuple[str, Range]]:
    """Return ggml type and place of each layer's router, in the order of the layers."""
    found = {int(match[1]): one for name, one in checkpoint.tensors().items() if (match := ROUTER.fullmatch(name))}
    return [(one.dtype, Range(one.file, one.offset, one.n_bytes)) for _, one in sorted(found.items())]
