"""What a base model is, whether it can be cut, and whether it is in the wanted quantisation already."""

from pathlib import Path

from shared.checkpoints import gguf
from shared.checkpoints.architectures import architecture_named
from shared.checkpoints.base import CheckpointInfo
from shared.checkpoints.gguf_experts import describe
from shared.kernel.errors import ConfigurationError

UNQUANTISED = frozenset({"F32", "F16", "BF16"})


def ready_made(source: Path, quantization: str) -> bool:
    """Tell whether the GGUF `source` is in this quantisation already.

    Raises:
        ConfigurationError: it is quantised otherwise, and quantising twice would give another model.
    """
    found = gguf.quantization_of(gguf.load(source))
    if found == quantization:
        return True
    if found in UNQUANTISED:
        return False
    raise ConfigurationError(
        f"the file is {found or 'of an unknown type'} already and cannot be made {quantization}", where=str(source),
        hint=f'set quantization = "{found}", or give the F16 file',
    )  # fmt: skip


def as_gguf(info: CheckpointInfo) -> CheckpointInfo:
    """Return the facts of a checkpoint that is going to be converted: the layouts are those of the GGUF it will be."""
    row = architecture_named(info.architecture)
    if row is None:
        return info
    agree = row.gating != "softmax" or row.normalises is not False
    return info.model_copy(update={"no_biased": row.no_bias if row.bias is None else "", "layouts_agree": agree})


def describe_base(path: Path) -> tuple[CheckpointInfo, int | None, str]:
    """Return the facts of a base model, its KV heads, and why it cannot be cut ("" where it can).

    Raises:
        DataError: a damaged file.
    """
    file = gguf.load(path)
    heads = file.get(f"{file.architecture}.attention.head_count_kv")
    kv_heads = heads if isinstance(heads, int) else None
    try:
        return describe(file), kv_heads, ""
    except ConfigurationError as refused:
        experts, active = (file.get(f"{file.architecture}.expert_{what}") for what in ("count", "used_count"))
        info = CheckpointInfo(
            format="gguf", architecture=file.architecture, n_layers=file.integer("block_count"),
            n_experts=experts if isinstance(experts, int) else 0,
            experts_per_token=active if isinstance(active, int) else 0,
            size_bytes=file.size_bytes, quantization=gguf.quantization_of(file),
        )  # fmt: skip
        return info, kv_heads, refused.message
