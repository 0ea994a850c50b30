"""distributed-llama model files (.m): a suspicious parser, and surgery as a recipe of byte ranges.

A file is int32 magic 0x0A00ABCD, int32 header size, (key, value) int32 pairs, and tensors in a fixed order without
names or offsets, so the header alone says where everything is. Little-endian throughout. Source: converter/ and
src/llm.cpp of distributed-llama v0.16.4 (commit 8d624a7).

Only `uniform`: the format has one expert count and no selection bias. The header takes no unknown keys (the engine
throws), so the plan's hash cannot be recorded in the file.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

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
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.records import SurgeryPlan
from shared.kernel.regular_files import open_regular

MAGIC: Final = 0x0A00ABCD
QWEN3_MOE: Final = 0xABCD02
ARCHITECTURES: Final = {0xABCD00: "llama", 0xABCD01: "qwen3", QWEN3_MOE: "qwen3moe"}
KEYS: Final = {
    "version": 0, "arch_type": 1, "dim": 2, "hidden_dim": 3, "n_layers": 4, "n_heads": 5, "n_kv_heads": 6,
    "n_experts": 7, "n_active_experts": 8, "vocab_size": 9, "max_seq_len": 10, "hidden_act": 11, "rope_theta": 12,
    "weights_float_type": 13, "rope_scaling_factor": 14, "rope_scaling_low_freq_factor": 15,
    "rope_scaling_high_freq_factor": 16, "rope_scaling_orig_max_seq_len": 17, "rope_type": 18, "head_dim": 19,
    "norm_epsilon": 20, "moe_hidden_dim": 21,
}  # fmt: skip
_NAMES: Final = {number: name for name, number in KEYS.items()}
_REQUIRED: Final = ("arch_type", "dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "weights_float_type")
_OF_EXPERTS: Final = ("n_experts", "n_active_experts", "moe_hidden_dim")
_SIZES: Final = ("dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "max_seq_len", "head_dim", *_OF_EXPERTS)
FLOAT_TYPES: Final = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q40", 32, 18), 3: ("Q80", 32, 34)}
"""Weight types: name, elements in a block, bytes of a block."""
_GGML_NAMES: Final = {"Q40": "Q4_0", "Q80": "Q8_0"}


def ggml_name(float_type: int) -> str:
    """Return the ggml type whose bytes a weight type has."""
    name = FLOAT_TYPES[float_type][0]
    return _GGML_NAMES.get(name, name)


@dataclass(frozen=True, slots=True)
class Section:
    """One tensor, or the experts of one layer: `n_experts` equal parts one behind the other."""

    name: str
    offset: int
    n_bytes: int
    layer: int | None = None
    n_experts: int = 0


@dataclass(frozen=True, slots=True)
class DllamaFile:
    """A parsed file; `header` in the order of the file."""

    path: Path
    header: dict[str, int]
    header_bytes: int
    sections: tuple[Section, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """What the first bytes say, of any architecture; `values` by name in the order of the file."""

    values: dict[str, int]
    n_bytes: int

    @property
    def architecture(self) -> str:
        """Name of the architecture, its number where it is unknown."""
        number = self.values["arch_type"]
        return ARCHITECTURES.get(number, f"{number & 0xFFFFFFFF:#x}")


def read_header(path: Path) -> Header:
    """Read the header of a .m file, dense or not: the one reader, for surgery and for the engine's start.

    Keys are known and come once, as the engine wants them; sizes are possible ones.

    Raises:
        ConfigurationError: it cannot be opened.
        DataError: another format, truncated, corrupt or hostile.
    """
    try:
        with open_regular(path) as file:
            head = file.read(8)
            if len(head) < 8 or struct.unpack("<I", head[:4])[0] != MAGIC:
                raise DataError("not a distributed-llama model", where=str(path))
            n_bytes = struct.unpack("<i", head[4:])[0]
            if not 8 <= n_bytes <= 8 + 8 * len(KEYS) or n_bytes % 8:
                raise DataError(f"a header of {n_bytes} bytes", where=str(path))
            data = file.read(n_bytes - 8)
    except OSError as error:
        raise ConfigurationError(f"cannot read the model: {error.strerror}", where=str(path)) from error
    if len(data) != n_bytes - 8:
        raise DataError("the header is cut off", where=str(path))
    return Header(_values(data, path), n_bytes)


def _values(data: bytes, path: Path) -> dict[str, int]:
    header: dict[str, int] = {}
    for key, value in struct.iter_unpack("<ii", data):
        name = _NAMES.get(key)
        if name is None or name in header:
            raise DataError(f"unknown or repeated header key {key}", where=str(path))
        header[name] = value
    if missing := [name for name in _REQUIRED if name not in header]:
        raise DataError(f"the header lacks {missing[0]}", where=str(path))
    for name in _SIZES:
        least = 0 if name in _OF_EXPERTS else 1
        if name in header and not least <= header[name] <= 1 << 24:
            raise DataError(f"{name} is {header[name]}", where=str(path))
    experts = header.get("n_experts", 0)
    if header.get("n_active_experts", 0) > experts or header["weights_float_type"] not in FLOAT_TYPES:
        raise DataError("impossible expert counts or weight type", where=str(path))
    if header["n_layers"] > 4096 or experts > 4096:
        raise DataError(f"{header['n_layers']} layers of {experts} experts", where=str(path))
    return header


def parse(path: Path) -> DllamaFile:
    """Parse a .m file; its size must be what its header says.

    Raises:
        ConfigurationError: it cannot be opened, or is not a Qwen3-MoE.
        DataError: truncated, corrupt or hostile.
    """
    found = read_header(path)
    header = found.values
    if header["arch_type"] != QWEN3_MOE:
        raise ConfigurationError(
            f"architecture {found.architecture} has no experts to cut here", where=str(path),
            hint="supported: Qwen3-MoE",
        )  # fmt: skip
    if missing := [name for name in _OF_EXPERTS if header.get(name, 0) < 1]:
        raise DataError(f"the header lacks {missing[0]}", where=str(path))
    _, block, _ = FLOAT_TYPES[header["weights_float_type"]]
    if header["dim"] % block or header["moe_hidden_dim"] % block:
        raise DataError(f"sizes that are no multiples of the block of {block}", where=str(path))
    sections = _sections(header, found.n_bytes)
    end, size = sections[-1].offset + sections[-1].n_bytes, path.stat().st_size
    if end != size:
        raise DataError(
            f"the header promises {end} bytes, the file has {size}", where=str(path), hint="truncated or corrupt"
        )
    return DllamaFile(path, header, found.n_bytes, sections, size)


def _sections(header: dict[str, int], header_bytes: int) -> tuple[Section, ...]:
    """Return all tensors in the order of the file."""
    dim, heads, experts = header["dim"], header["n_heads"], header["n_experts"]
    head_dim = header.get("head_dim", dim // heads)
    q_dim, kv_dim = heads * head_dim, header["n_kv_heads"] * head_dim
    _, block, block_bytes = FLOAT_TYPES[header["weights_float_type"]]

    def matrix(elements: int) -> int:
        return -(-elements // block) * block_bytes

    expert = 3 * matrix(dim * header["moe_hidden_dim"])
    sections: list[Section] = []
    at = header_bytes

    def add(name: str, n_bytes: int, layer: int | None = None, n_experts: int = 0) -> None:
        nonlocal at
        sections.append(Section(name, at, n_bytes, layer, n_experts))
        at += n_bytes

    add("embedding", 4 * dim * header["vocab_size"])
    for layer in range(header["n_layers"]):
        add("q", matrix(dim * q_dim), layer)
        add("k", matrix(dim * kv_dim), layer)
        add("v", matrix(dim * kv_dim), layer)
        add("o", matrix(dim * q_dim), layer)
        add("router", 4 * dim * experts, layer, experts)
        add("experts", expert * experts, layer, experts)
        add("norms", 4 * (2 * head_dim + 2 * dim), layer)
    add("final_norm", 4 * dim)
    add("output", matrix(dim * header["vocab_size"]))
    return tuple(sections)


def describe(file: DllamaFile) -> CheckpointInfo:
    """Return the facts of the model."""
    return CheckpointInfo(
        format="dllama", architecture="qwen3_moe", n_layers=file.header["n_layers"],
        n_experts=file.header["n_experts"], experts_per_token=file.header["n_active_experts"],
        size_bytes=file.size_bytes, quantization=FLOAT_TYPES[file.header["weights_float_type"]][0],
    )  # fmt: skip


def pack_header(header: dict[str, int]) -> bytes:
    """Return magic, size and pairs."""
    pairs = b"".join(struct.pack("<ii", KEYS[name], value) for name, value in header.items())
    return struct.pack("<Ii", MAGIC, 8 + len(pairs)) + pairs


def routers(file: DllamaFile) -> list[tuple[str, Range]]:
    """Return ggml type and place of each layer's router, in the order of the layers."""
    return [
        ("F32", Range(file.path, section.offset, section.n_bytes))
        for section in file.sections
        if section.name == "router"
    ]


def recipe(file: DllamaFile, plan: SurgeryPlan) -> list[OutputFile]:
    """Describe the file after surgery: one.

    Raises:
        ConfigurationError: a plan that does not fit, or a biased layout.
    """
    info = describe(file)
    check_plan(plan, info, file.path)
    if plan.layout == "biased":
        raise ConfigurationError(
            "distributed-llama has one expert count for all layers and no selection bias", where=str(file.path),
            hint="keep the same number of experts in every layer, or use GGUF",
        )  # fmt: skip
    if keeps_everything(plan, info):
        return [OutputFile("", (Range(file.path, 0, file.size_bytes),))]
    header = {**file.header, "n_experts": len(plan.kept[0])}
    if plan.experts_per_token is not None:
        header["n_active_experts"] = plan.experts_per_token
    pieces: list[Piece] = [Inline(pack_header(header))]
    for section in file.sections:
        if section.n_experts and section.layer is not None:
            pieces.extend(per_expert_pieces(file, section, plan))
        else:
            pieces.append(Range(file.path, section.offset, section.n_bytes))
    return [OutputFile("", joined(pieces))]


def per_expert_pieces(file: DllamaFile, section: Section, plan: SurgeryPlan) -> list[Piece]:
    """Return what a plan leaves of a layer's router or experts."""
    assert section.layer is not None
    experts = expert_ranges(file.path, section.offset, section.n_bytes, section.n_experts)
    kind, matrix = "F32", None
    if section.name == "experts":
        kind = ggml_name(file.header["weights_float_type"])
    if plan.merge is not None:
        matrix = (plan.merge.experts if section.name == "experts" else plan.merge.routers)[section.layer]
    return kept_pieces(experts, plan.kept[section.layer], kind, matrix)
