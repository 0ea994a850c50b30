"""The model as a file of headers only: converted, quantised and cut on paper, in milliseconds and kilobytes.

What llama.cpp is shown has no vocabulary, since reading one of 150,000 words takes half a second; its bytes still count
in the size of the model's file. Not here: what is calculated from the headers (`llama_cpp`, `distributed_llama`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.checkpoints import gguf, gguf_surgery
from shared.checkpoints.base import OutputFile, Zeros
from shared.checkpoints.gguf import GgufFile
from shared.checkpoints.gguf_experts import describe
from shared.checkpoints.gguf_writing import Header, output_of
from shared.checkpoints.hollow import retyped, write_hollow
from shared.kernel.records import SurgeryPlan
from shared.wire.footprint import VariantShape
from surgeon.conversion.bases import ready_made
from surgeon.conversion.quantize import quantized_types
from surgeon.conversion.to_gguf import write_header

_VOCABULARY: Final = "tokenizer."


@dataclass(frozen=True)
class HollowModel:
    """A model of which only the headers exist."""

    path: Path
    file_bytes: int
    """Of the whole model with its vocabulary, which the file at `path` lacks."""


def hollow_base(source: Path, quantization: str, folder: Path) -> HollowModel:
    """Write the headers of the model at `source` (a folder of safetensors, or a GGUF) in `quantization` to `folder`.

    Raises:
        ConfigurationError: it cannot be converted or quantised so.
        DataError: a damaged checkpoint.
    """
    whole = source
    if source.is_dir():
        whole = folder / "converted.gguf"
        write_header(source, whole)
    types = {} if ready_made(whole, quantization) else quantized_types(whole, quantization)
    quantised = retyped(gguf.load(whole), types)
    target = folder / "base.gguf"
    write_hollow(quantised, target)
    write_hollow(_without_vocabulary(gguf.parse(target)), target)
    return HollowModel(target, quantised.size_bytes)


def hollow_variant(base: HollowModel, variant: VariantShape, folder: Path) -> HollowModel:
    """Write the headers of a variant; which experts go does not matter for bytes, so the last ones do.

    Raises:
        ConfigurationError: the numbers do not fit the model, or it cannot have the layout.
    """
    if variant.kept is None and variant.layout == "uniform":
        return base
    file = gguf.parse(base.path)
    info = describe(file)
    whole = (info.n_experts,) * info.n_layers
    kept = variant.kept or whole
    if kept == whole and variant.layout == "uniform":
        return base
    plan = SurgeryPlan(n_experts=info.n_experts, kept=tuple(tuple(range(n)) for n in kept), layout=variant.layout)
    (output,) = gguf_surgery.recipe(file, plan)
    target = folder / "variant.gguf"
    write_hollow(output, target)
    return HollowModel(target, base.file_bytes - file.size_bytes + output.size_bytes)


def _without_vocabulary(file: GgufFile) -> OutputFile:
    header = Header(file)
    header.drop_prefix(_VOCABULARY)
    header.set_text(f"{_VOCABULARY}ggml.model", b"none")
    embedding = file.tensor("token_embd.weight")
    if embedding is not None:
        header.set_uint32(f"{file.architecture}.vocab_size", embedding.outermost)
    return output_of(file, header, [(tensor, (Zeros(tensor.n_bytes),)) for tensor in file.tensors])
