"""Hugging Face safetensors -> GGUF in F32, F16 or BF16, without PyTorch, in bounded memory.

Tensor names and vocabulary helpers are the gguf library's; one tensor (one expert at a time of a stacked one) is in
memory. The output depends on the checkpoint's contents only: no path, no time.

Not here: quantisation (`surgeon.conversion.quantize`), surgery (`shared.checkpoints.surgery`).
"""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import gguf
import numpy as np
import numpy.typing as npt

from shared.checkpoints import safetensors
from shared.checkpoints.finite import require_finite
from shared.checkpoints.safetensors import Checkpoint, TensorEntry
from shared.checkpoints.safetensors_experts import describe, transposed_tensors
from shared.files.atomic import atomic_write
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.progress import Progress
from surgeon.conversion.families import FAMILIES, Family, expert_tensor
from surgeon.conversion.ignored_settings import check_settings
from surgeon.conversion.vocabulary import add_vocabulary

OutType = Literal["F32", "F16", "BF16"]

_FILE_TYPES: Final = {
    "F32": gguf.LlamaFileType.ALL_F32,
    "F16": gguf.LlamaFileType.MOSTLY_F16,
    "BF16": gguf.LlamaFileType.MOSTLY_BF16,
}
_ALWAYS_F32: Final = ("ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight", "_norm.weight")
_LAYER: Final = re.compile(r"model\.layers\.(\d+)")


@dataclass(frozen=True)
class _Output:
    """One GGUF tensor and how to get its values, expert by expert where it is stacked."""

    name: str
    shape: tuple[int, ...]
    outtype: OutType
    chunks: Callable[[], Iterator[npt.NDArray[Any]]]
    is_stacked: bool = False
    """One chunk an expert."""


def convert(source: Path, target: Path, *, outtype: OutType = "F16", on_progress: Progress | None = None) -> None:
    """Convert the checkpoint directory `source` to the GGUF file `target`.

    Raises:
        ConfigurationError: an architecture or tokenizer that is not supported.
        DataError: a damaged checkpoint, or values that F16 cannot hold.
    """
    outputs, writer = _planned(source, outtype)
    try:
        with atomic_write(target) as beside:
            _write_head(writer, beside)
            _write_data(writer, outputs, on_progress)
            writer.close()
    finally:
        with suppress(OSError):  # what a full disk did not take before is not worth another word
            writer.close()


def write_header(source: Path, target: Path, *, outtype: OutType = "F16") -> None:
    """Write what `convert` would with a hole instead of the data, of the same length: raises as it does."""
    outputs, writer = _planned(source, outtype)
    try:
        _write_head(writer, target)
        assert writer.fout is not None
        file = writer.fout[0]
        writer.write_padding(file, file.tell())
        alignment = writer.data_alignment
        file.truncate(file.tell() + sum(-(-_size(output) // alignment) * alignment for output in outputs))
    finally:
        writer.close()


def _planned(source: Path, outtype: OutType) -> tuple[list[_Output], gguf.GGUFWriter]:
    checkpoint = safetensors.parse(source)
    family = FAMILIES.get(checkpoint.architecture)
    if family is None:
        raise ConfigurationError(
            f"the architecture {checkpoint.architecture or '(none)'!r} cannot be converted",
            where=str(source / "config.json"), hint=f"supported: {', '.join(sorted(FAMILIES))}",
        )  # fmt: skip
    check_settings(checkpoint, family)
    describe(checkpoint)
    outputs = _outputs(checkpoint, family, outtype)
    writer = gguf.GGUFWriter(None, gguf.MODEL_ARCH_NAMES[family.architecture])
    _add_parameters(writer, checkpoint, family, outtype)
    add_vocabulary(writer, source, checkpoint.integer("vocab_size"))
    for output in outputs:
        kind = gguf.GGMLQuantizationType[output.outtype]
        writer.add_tensor_info(output.name, output.shape, np.dtype(np.float32), _size(output), raw_dtype=kind)
    return outputs, writer


def _size(output: _Output) -> int:
    return int(np.prod(output.shape)) * (4 if output.outtype == "F32" else 2)


def _write_head(writer: gguf.GGUFWriter, target: Path) -> None:
    writer.write_header_to_file(target)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()


def _write_data(writer: gguf.GGUFWriter, outputs: list[_Output], on_progress: Progress | None) -> None:
    assert writer.fout is not None
    file = writer.fout[0]
    writer.write_padding(file, file.tell())
    for number, output in enumerate(outputs):
        written = 0
        for place, values in enumerate(output.chunks()):
            require_finite(values, f"{output.name}, expert {place}" if output.is_stacked else output.name)
            data = _encode(values, output)
            data.tofile(file)
            written += data.nbytes
        writer.write_padding(file, written)
        if on_progress is not None:
            on_progress((number + 1) / len(outputs), output.name)


def _encode(values: npt.NDArray[Any], output: _Output) -> npt.NDArray[Any]:
    if output.outtype == "BF16":
        return values if values.dtype == np.uint16 else _to_bf16(values)
    values = to_float32(values)
    if output.outtype == "F32":
        return values
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise DataError("a value does not fit F16", where=output.name, hint="convert to BF16 or F32")
    return half


def to_float32(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the values of `read_tensor` in F32; BF16 comes as uint16."""
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def _to_bf16(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asarray(gguf.quantize(values.astype(np.float32), gguf.GGMLQuantizationType.BF16))


def _outputs(checkpoint: Checkpoint, family: Family, outtype: OutType) -> list[_Output]:
    n_experts = checkpoint.integer("num_experts", "num_local_experts")
    names = gguf.get_tensor_name_map(family.architecture, checkpoint.integer("num_hidden_layers"))
    tied = bool(checkpoint.config.get("tie_word_embeddings", False))
    if tied and family.architecture == gguf.MODEL_ARCH.QWEN2MOE:
        raise ConfigurationError("llama.cpp has no tied embeddings for qwen2moe", where=str(checkpoint.path))
    sizes = checkpoint.integer("hidden_size"), checkpoint.integer(family.inner_size)
    transposed = transposed_tensors(checkpoint, *sizes)
    outputs: list[_Output] = []
    grouped: dict[str, list[TensorEntry | None]] = {}
    for name, tensor in checkpoint.tensors().items():
        if tensor.dtype not in ("F32", "F16", "BF16"):
            raise ConfigurationError(f"tensor {name!r} has the dtype {tensor.dtype}", where=str(tensor.file))
        if tied and name == "lm_head.weight":
            continue
        head, dot, tail = name.partition(family.experts)
        layer = _LAYER.fullmatch(head)
        if not dot or layer is None:
            heads = _rotated_heads(name, checkpoint) if family.interleaved_rope else None
            outputs.append(_plain(_mapped(names, name, checkpoint), tensor, outtype, heads))
            continue
        first, _, last = tail.removesuffix(".weight").partition(".")
        part = family.part(last or first)
        if not last and (part or first == "gate_up_proj"):
            outputs.extend(_stacked(int(layer[1]), part, tensor, outtype, name in transposed))
        elif part is not None and first.isdecimal() and int(first) < n_experts:
            grouped.setdefault(expert_tensor(int(layer[1]), part), [None] * n_experts)[int(first)] = tensor
        else:
            raise DataError(f"unexpected tensor {name!r}", where=str(tensor.file))
    for mapped, entries in grouped.items():
        outputs.append(_merged(mapped, entries, outtype, checkpoint))
    return sorted(outputs, key=lambda output: _order(output.name))


def _order(name: str) -> tuple[int, int, str]:
    parts = name.split(".")
    return (1, int(parts[1]), name) if parts[0] == "blk" else (0 if parts[0] == "token_embd" else 2, 0, name)


def _mapped(names: gguf.TensorNameMap, name: str, checkpoint: Checkpoint) -> str:
    mapped = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if mapped is None:
        raise ConfigurationError(f"tensor {name!r} is unknown to GGUF", where=str(checkpoint.path))
    return str(mapped)


def _rotated_heads(name: str, checkpoint: Checkpoint) -> int | None:
    """Return how many heads a tensor has whose rows RoPE rotates; None for others."""
    part = name.removesuffix(".weight").removesuffix(".bias")
    if part.endswith(".q_proj"):
        return checkpoint.integer("num_attention_heads")
    if part.endswith(".k_proj"):
        return checkpoint.integer("num_key_value_heads", "num_attention_heads")
    return None


def _plain(name: str, tensor: TensorEntry, outtype: OutType, heads: int | None) -> _Output:
    plain = len(tensor.shape) == 1 or name.endswith(_ALWAYS_F32)

    def chunks() -> Iterator[npt.NDArray[Any]]:
        values = read_tensor(tensor)
        yield values if heads is None else _interleaved(values, heads)

    return _Output(name, tensor.shape, "F32" if plain else outtype, chunks)


def _interleaved(values: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    """Bring rows i and i + half of each head together, as llama.cpp's RoPE of the architecture llama has them."""
    halves = values.reshape(heads, 2, -1, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def _merged(name: str, entries: list[TensorEntry | None], outtype: OutType, checkpoint: Checkpoint) -> _Output:
    found = [entry for entry in entries if entry is not None]
    if len(found) != len(entries):
        raise DataError(f"{name}: {len(found)} of {len(entries)} experts are there", where=str(checkpoint.path))
    if len({(entry.shape, entry.dtype) for entry in found}) != 1:
        raise DataError(f"{name}: experts of different shapes", where=str(checkpoint.path))
    return _Output(name, (len(found), *found[0].shape), outtype, lambda: (read_tensor(entry) for entry in found), True)


def _stacked(
    layer: int, part: str | None, tensor: TensorEntry, outtype: OutType, transposed: bool
) -> list[_Output]:  # fmt: skip
    """Newer transformers stack: gate_up_proj [E, 2 ff, d] (`part` None) and down_proj [E, d, ff], or transposed."""
    n_experts, rows, columns = tensor.shape if not transposed else (tensor.shape[0], *tensor.shape[:0:-1])

    def read(expert: int) -> npt.NDArray[Any]:
        values = read_tensor(tensor, expert)
        return np.ascontiguousarray(values.T) if transposed else values

    def chunks(begin: int, end: int) -> Callable[[], Iterator[npt.NDArray[Any]]]:
        return lambda: (read(expert)[begin:end] for expert in range(n_experts))

    halves = [("gate", 0, rows // 2), ("up", rows // 2, rows)] if part is None else [(part, 0, rows)]
    return [
        _Output(expert_tensor(layer, name), (n_experts, end - begin, columns), outtype, chunks(begin, end), True)
        for name, begin, end in halves
    ]


def read_tensor(tensor: TensorEntry, index: int | None = None) -> npt.NDArray[Any]:
    """Read a tensor, or item `index` of its outermost dimension; BF16 comes as uint16.

    Raises:
        DataError: the file became shorter.
    """
    dtype = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}[tensor.dtype]
    shape, offset = tensor.shape, tensor.offset
    if index is not None:
        shape = tensor.shape[1:]
        offset += index * (tensor.n_bytes // tensor.shape[0])
    count = int(np.prod(shape))
    values: npt.NDArray[Any] = np.fromfile(tensor.file, dtype, count, offset=offset)
    if values.size != count:
        raise DataError("the file became shorter while it was read", where=str(tensor.file))
    return values.reshape(shape)


def _add_parameters(writer: gguf.GGUFWriter, checkpoint: Checkpoint, family: Family, outtype: OutType) -> None:
    config = checkpoint.config
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = config.get("rope_theta") or rope.get("rope_theta") or 10_000.0
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise ConfigurationError(f"rope scaling {rope!r} is not supported", where=str(checkpoint.path / "config.json"))
    n_heads = checkpoint.integer("num_attention_heads")
    hidden = checkpoint.integer("hidden_size")
    head_dim = config.get("head_dim") or hidden // n_heads
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(checkpoint.architecture)
    writer.add_file_type(_FILE_TYPES[outtype])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(checkpoint.integer("num_hidden_layers"))
    writer.add_context_length(checkpoint.integer("max_position_embeddings"))
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(int(config.get("intermediate_size") or checkpoint.integer(family.inner_size)))
    writer.add_head_count(n_heads)
    writer.add_head_count_kv(checkpoint.integer("num_key_value_heads", "num_attention_heads"))
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_freq_base(float(theta))
    writer.add_layer_norm_rms_eps(float(config.get("rms_norm_eps", 1e-6)))
    writer.add_expert_count(checkpoint.integer("num_experts", "num_local_experts"))
    writer.add_expert_used_count(checkpoint.integer("num_experts_per_tok"))
    writer.add_expert_feed_forward_length(checkpoint.integer(family.inner_size))
    if family.interleaved_rope:
        writer.add_rope_dimension_count(head_dim)
        writer.add_vocab_size(checkpoint.integer("vocab_size"))
    if family.architecture == gguf.MODEL_ARCH.QWEN2MOE:
        writer.add_expert_shared_feed_forward_length(checkpoint.integer("shared_expert_intermediate_size"))
