"""Surgery on Hugging Face checkpoint directories as a recipe of byte ranges.

Known namings: Qwen3-MoE and Qwen2-MoE (`mlp.gate`, `mlp.experts.J.*`), Mixtral (`block_sparse_moe.gate`,
`block_sparse_moe.experts.J.w1|w2|w3`), and stacked experts (`experts.gate_up_proj` [E, ...], `experts.down_proj`).
Every shard keeps its name and order; kept experts are numbered anew; config, index, model card and metadata follow.

Only `uniform`: transformers has one expert count for all layers and no selection bias.
"""

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from shared.checkpoints.base import (
    CheckpointInfo,
    Inline,
    OutputFile,
    Piece,
    Range,
    check_plan,
    joined,
    keeps_everything,
)
from shared.checkpoints.experts import expert_ranges, kept_pieces
from shared.checkpoints.safetensors import INDEX_NAME, Checkpoint, TensorEntry, TensorFile
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.records import SurgeryPlan, canonical_json
from shared.kernel.regular_files import leads_outside

PLAN_FILE: Final = "epi_surgery.json"
PLAN_KEY: Final = "epi.surgery.plan_sha256"
_COUNT_KEYS: Final = {
    "Qwen3MoeForCausalLM": "num_experts",
    "Qwen2MoeForCausalLM": "num_experts",
    "MixtralForCausalLM": "num_local_experts",
}
_EXPERT: Final = re.compile(r"(model\.layers\.(\d+)\.(?:mlp|block_sparse_moe)\.experts\.)(\d+)(\..+)")
_STACKED: Final = re.compile(
    r"model\.layers\.(\d+)\.(?:mlp|block_sparse_moe)\.experts\.(?:gate_up_proj|gate_proj|up_proj|down_proj)(?:\.weight)?"
)
_ROUTER: Final = re.compile(r"model\.layers\.(\d+)\.(?:mlp|block_sparse_moe)\.gate\.weight")
_OTHER_WEIGHTS: Final = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".m", ".ckpt")


def describe(checkpoint: Checkpoint) -> CheckpointInfo:
    """Return the facts of a Mixture-of-Experts checkpoint.

    Raises:
        ConfigurationError: a dense model, or an architecture this project does not cut.
        DataError: config and tensors contradict each other.
    """
    config_path = str(checkpoint.path / "config.json")
    architecture = checkpoint.architecture
    if architecture not in _COUNT_KEYS:
        raise ConfigurationError(
            f"the architecture {architecture or '(none)'!r} is not supported", where=config_path,
            hint=f"supported: {', '.join(sorted(_COUNT_KEYS))}",
        )  # fmt: skip
    n_experts = checkpoint.integer(_COUNT_KEYS[architecture])
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


def moe_layers(tensors: Mapping[str, TensorEntry]) -> tuple[int, ...]:
    """Return the numbers of the layers with a router, ascending."""
    return tuple(sorted(int(match[1]) for name in tensors if (match := _ROUTER.fullmatch(name))))


def _check_experts(
    tensors: Mapping[str, TensorEntry], layers: tuple[int, ...], n_experts: int, checkpoint: Checkpoint
) -> None:
    parts: dict[tuple[int, str], set[int]] = {}
    stacked: dict[int, int] = {}
    for name, tensor in tensors.items():
        layer = _layer(name)
        if layer is None:
            continue
        if layer not in layers:
            raise DataError(f"layer {layer} has experts but no router", where=str(tensor.file))
        if match := _EXPERT.fullmatch(name):
            parts.setdefault((layer, match[4]), set()).add(int(match[3]))
            continue
        if not tensor.shape or tensor.shape[0] != n_experts:
            raise DataError(
                f"{name!r} has the shape {list(tensor.shape)}, config.json says {n_experts} experts",
                where=str(tensor.file),
            )
        stacked[layer] = stacked.get(layer, 0) + (_STACKED.fullmatch(name) is not None)
    for layer in layers:
        mine = [ids for (at, _), ids in parts.items() if at == layer]
        if not mine and stacked.get(layer, 0) < 2:
            raise DataError(f"layer {layer} has a router but no experts", where=str(checkpoint.path))
    for (layer, part), ids in parts.items():
        if ids != set(range(n_experts)):
            raise DataError(
                f"layer {layer} has {len(ids)} of {n_experts} experts' {part[1:]}", where=str(checkpoint.path)
            )


def _layer(name: str) -> int | None:
    """Return the layer of a tensor that belongs to experts or routers, None for any other tensor."""
    for pattern, group in ((_EXPERT, 2), (_STACKED, 1), (_ROUTER, 1)):
        if match := pattern.fullmatch(name):
            return int(match[group])
    return None


def recipe(checkpoint: Checkpoint, plan: SurgeryPlan) -> list[OutputFile]:
    """Describe the directory after surgery.

    Raises:
        ConfigurationError: a model or plan that cannot be used, or a biased layout.
        DataError: a contradictory checkpoint.
    """
    info = describe(checkpoint)
    check_plan(plan, info, checkpoint.path)
    if plan.layout == "biased":
        raise ConfigurationError(
            "the biased layout exists in GGUF only", where=str(checkpoint.path),
            hint="convert to GGUF first, or keep the same number of experts in every layer",
        )  # fmt: skip
    others = _other_files(checkpoint)
    if keeps_everything(plan, info):
        names = [file.path for file in checkpoint.files] + [path for path in others if path.name != PLAN_FILE]
        names += [checkpoint.path / name for name in ("config.json", INDEX_NAME) if (checkpoint.path / name).exists()]
        return [_copy(path) for path in sorted(names)]
    outputs: list[OutputFile] = []
    weight_map: dict[str, str] = {}
    total_bytes = 0
    tensors = checkpoint.tensors()
    rank = {layer: row for row, layer in enumerate(moe_layers(tensors))}
    for file in checkpoint.files:
        output, names_in, n_bytes = _shard(file, plan, rank, tensors)
        if names_in:
            outputs.append(output)
            weight_map.update(dict.fromkeys(names_in, output.name))
            total_bytes += n_bytes
    outputs.append(_json_file("config.json", _config(checkpoint, plan)))
    if checkpoint.index_metadata is not None:
        metadata = {**checkpoint.index_metadata, "total_size": total_bytes}
        outputs.append(_json_file(INDEX_NAME, {"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))}))
    outputs.append(OutputFile(PLAN_FILE, (Inline(canonical_json(plan) + b"\n"),)))
    for path in others:
        if path.name == "README.md":
            outputs.append(OutputFile(path.name, (*_copy(path).pieces, Inline(_card(plan, info)))))
        elif path.name != PLAN_FILE:
            outputs.append(_copy(path))
    if not any(path.name == "README.md" for path in others):
        outputs.append(OutputFile("README.md", (Inline(_card(plan, info).lstrip(b"\n")),)))
    return outputs


def _shard(
    file: TensorFile, plan: SurgeryPlan, rank: Mapping[int, int], tensors: Mapping[str, TensorEntry]
) -> tuple[OutputFile, list[str], int]:
    entries: dict[str, Any] = {}
    pieces: list[Piece] = []
    at = 0
    for tensor in file.tensors:
        cut = _cut(tensor, plan, rank, tensors)
        if cut is None:
            continue
        name, shape, parts = cut
        length = sum(part.length for part in parts)
        entries[name] = {"dtype": tensor.dtype, "shape": shape, "data_offsets": [at, at + length]}
        pieces.extend(parts)
        at += length
    names = list(entries)
    metadata = {**file.metadata, PLAN_KEY: plan.plan_hash()}
    header = json.dumps({"__metadata__": metadata, **entries}, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    return OutputFile(file.path.name, joined([Inline(struct.pack("<Q", len(header)) + header), *pieces])), names, at


def _cut(
    tensor: TensorEntry, plan: SurgeryPlan, rank: Mapping[int, int], tensors: Mapping[str, TensorEntry]
) -> tuple[str, list[int], list[Piece]] | None:
    """Return the tensor's new name, shape and bytes; None when it belongs to a dropped expert."""
    layer = _layer(tensor.name)
    if layer is None:
        return tensor.name, list(tensor.shape), [Range(tensor.file, tensor.offset, tensor.n_bytes)]
    kept = plan.kept[rank[layer]]
    matrix = None
    if plan.merge is not None:
        is_router = _ROUTER.fullmatch(tensor.name) is not None
        matrix = (plan.merge.routers if is_router else plan.merge.experts)[rank[layer]]
    if match := _EXPERT.fullmatch(tensor.name):
        if int(match[3]) not in kept:
            return None
        place = kept.index(int(match[3]))
        each_expert = (tensors[f"{match[1]}{expert}{match[4]}"] for expert in range(plan.n_experts))
        experts = [Range(one.file, one.offset, one.n_bytes) for one in each_expert]
        pieces = kept_pieces(experts, [kept[place]], tensor.dtype, matrix and [matrix[place]])
        return f"{match[1]}{place}{match[4]}", list(tensor.shape), pieces
    experts = expert_ranges(tensor.file, tensor.offset, tensor.n_bytes, tensor.shape[0])
    return tensor.name, [len(kept), *tensor.shape[1:]], kept_pieces(experts, kept, tensor.dtype, matrix)


def routers(checkpoint: Checkpoint) -> list[tuple[str, Range]]:
    """Return ggml type and place of each layer's router, in the order of the layers."""
    found = {int(match[1]): one for name, one in checkpoint.tensors().items() if (match := _ROUTER.fullmatch(name))}
    return [(one.dtype, Range(one.file, one.offset, one.n_bytes)) for _, one in sorted(found.items())]


def _config(checkpoint: Checkpoint, plan: SurgeryPlan) -> dict[str, Any]:
    config = {**checkpoint.config, _COUNT_KEYS[checkpoint.architecture]: len(plan.kept[0])}
    if plan.experts_per_token is not None:
        config["num_experts_per_tok"] = plan.experts_per_token
    return config


def _json_file(name: str, value: dict[str, Any]) -> OutputFile:
    return OutputFile(name, (Inline((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()),))


def _other_files(checkpoint: Checkpoint) -> list[Path]:
    """Return the files that go along: tokenizer, generation config, card, licence; no other weights.

    Raises:
        DataError: one is a link that leads out of the checkpoint: a stranger's folder would copy our own files.
    """
    known = {"config.json", INDEX_NAME}
    others = sorted(
        path
        for path in checkpoint.path.iterdir()
        if path.is_file() and path.name not in known and not path.name.startswith(".")
        and not path.name.endswith((*_OTHER_WEIGHTS, ".index.json"))
    )  # fmt: skip
    for path in others:
        if path.is_symlink() and all(leads_outside(home, path) for home in _homes(checkpoint.path)):
            raise DataError("a link that leads out of the checkpoint's folder", where=str(path))
    return others


def _homes(folder: Path) -> tuple[Path, ...]:
    """Return where a checkpoint's files lie: its folder; in the Hub's cache also the blobs that its links lead to."""
    cache = folder.resolve().parent
    return (folder, cache.parent / "blobs") if cache.name == "snapshots" else (folder,)


def _copy(path: Path) -> OutputFile:
    return OutputFile(path.name, (Range(path, 0, path.stat().st_size),))


def _card(plan: SurgeryPlan, info: CheckpointInfo) -> bytes:
    active = plan.experts_per_token or info.experts_per_token
    what = "removed from" if plan.merge is None else "merged in"
    return (
        f"\n\n## Surgery\n\nExperts were {what} this checkpoint by EPI Factory: {len(plan.kept[0])} of"
        f" {info.n_experts} are left in each of {info.n_layers} layers, {active}"
        f" are active per token.\n\n- method: {plan.method}\n- plan: `{plan.plan_hash()}` ({PLAN_FILE})\n"
        f"- statistics: `{plan.statistics_sha256}`\n- taken on: `{plan.base_sha256}`\n"
    ).encode()
