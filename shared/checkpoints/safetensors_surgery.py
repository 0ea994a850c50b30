"""Surgery on Hugging Face checkpoint directories as a recipe of byte ranges.

Every shard keeps its name and order; kept experts are numbered anew; config, index, model card and metadata follow.

Only `uniform`: transformers has one expert count for all layers and no selection bias. Not here: which tensors are
experts' (`safetensors_experts`).
"""

import json
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
from shared.checkpoints.safetensors_experts import (
    COUNT_KEYS,
    NUMBERED,
    ROUTER,
    STACKED,
    check_settings,
    describe,
    layer_of,
    moe_layers,
)
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.records import SurgeryPlan, canonical_json
from shared.kernel.regular_files import leads_outside

PLAN_FILE: Final = "epi_surgery.json"
PLAN_KEY: Final = "epi.surgery.plan_sha256"
_OTHER_WEIGHTS: Final = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".m", ".ckpt")


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
    check_settings(checkpoint)
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
    layer = layer_of(tensor, plan.n_experts)
    if layer is None:
        return tensor.name, list(tensor.shape), [Range(tensor.file, tensor.offset, tensor.n_bytes)]
    kept = plan.kept[rank[layer]]
    matrix = None
    if plan.merge is not None:
        stacked = STACKED.fullmatch(tensor.name)
        if stacked is not None and stacked[3] not in (None, ".weight", "_bias", ".bias"):
            raise ConfigurationError("experts with scales or zero points cannot be merged", where=tensor.name)
        is_router = ROUTER.fullmatch(tensor.name) is not None
        matrix = (plan.merge.routers if is_router else plan.merge.experts)[rank[layer]]
    if match := NUMBERED.fullmatch(tensor.name):
        if int(match[3]) not in kept:
            return None
        place = kept.index(int(match[3]))
        each_expert = (tensors[f"{match[1]}{expert}{match[4]}"] for expert in range(plan.n_experts))
        experts = [Range(one.file, one.offset, one.n_bytes) for one in each_expert]
        pieces = kept_pieces(experts, [kept[place]], tensor.dtype, matrix and [matrix[place]])
        return f"{match[1]}{place}{match[4]}", list(tensor.shape), pieces
    experts = expert_ranges(tensor.file, tensor.offset, tensor.n_bytes, tensor.shape[0])
    return tensor.name, [len(kept), *tensor.shape[1:]], kept_pieces(experts, kept, tensor.dtype, matrix)


def _config(checkpoint: Checkpoint, plan: SurgeryPlan) -> dict[str, Any]:
    config = {**checkpoint.config, COUNT_KEYS[checkpoint.architecture]: len(plan.kept[0])}
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
