"""Apply a SurgeryPlan to a checkpoint of any format: by byte ranges, in bounded memory, all or nothing.

The result is written beside its target, made durable and renamed, so that a crash leaves nothing that looks finished.
Tensor data goes from file to file inside the kernel (copy_file_range); where a file system refuses that, through a
small buffer. The disk is set to work while the rest is copied. The bytes written depend on the base and the plan only.

Not here: what the bytes are (the format modules beside it), and how a plan is found (the surgeon).
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from errno import EBADF, EINVAL, ENOSYS, EOPNOTSUPP, EPERM, EXDEV
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from shared.checkpoints.base import CheckpointInfo, Computed, Inline, OutputFile, Piece, Range, Zeros
from shared.checkpoints.routers import hash_of_routers
from shared.files.atomic import atomic_write
from shared.files.disk import room_hint
from shared.files.durability import begin_writeback
from shared.kernel.errors import ConfigurationError, DataError, InfrastructureError, StorageError
from shared.kernel.progress import Count
from shared.kernel.records import SurgeryPlan
from shared.kernel.regular_files import open_regular

"""(bytes written so far, bytes in all)"""

_DLLAMA_MAGIC: Final = bytes.fromhex("cdab000a")  # 0x0A00ABCD, little-endian
_STEP_BYTES: Final = 16 << 20
"""Copied at once, and handed to the disk at once: with less left dirty even copy and fsync together take less time."""
_BUFFER_BYTES: Final = 4 << 20
_NO_KERNEL_COPY: Final = frozenset({EXDEV, EINVAL, ENOSYS, EOPNOTSUPP, EPERM, EBADF})


def apply_plan(source: Path, plan: SurgeryPlan, target: Path, *, on_progress: Count | None = None) -> None:
    """Write the checkpoint `source` after surgery to `target`, which must not exist or is replaced when it is a file.

    Args:
        source: the base checkpoint.
        plan: which experts stay, in which layout.
        target: the result; its folder must exist.
        on_progress: called with bytes so far and in all.

    Raises:
        ConfigurationError: the plan does not fit the model, or the model is not one this project cuts.
        DataError: the source is damaged; nothing was written.
        InfrastructureError: the disk is full or fails; nothing is left behind.
    """
    write_outputs(recipe(source, plan), target, on_progress=on_progress)


def describe(source: Path) -> CheckpointInfo:
    """Return what model lies at `source`.

    Raises:
        ConfigurationError: unknown format, dense or unsupported model.
        DataError: damaged file.
    """
    form = _form(source)
    return form.describe(form.load(source))


def router_sha256(source: Path) -> str:
    """Return the hash of the model's routers, the same in every format and quantisation; raises as `describe`."""
    form = _form(source)
    file = form.load(source)
    return hash_of_routers(form.routers(file), form.describe(file).n_experts)


def recipe(source: Path, plan: SurgeryPlan) -> list[OutputFile]:
    """Return the files of the result, described but not written; raises as `apply_plan`."""
    form = _form(source)
    file = form.load(source)
    outputs = form.recipe(file, plan)
    if plan.router_sha256 is not None:
        check_routers(plan, hash_of_routers(form.routers(file), plan.n_experts), source)
    return outputs


def check_routers(plan: SurgeryPlan, routers: str, where: Path) -> None:
    """Refuse a plan that was made on other routers than those with the hash `routers`.

    Raises:
        ConfigurationError: it was.
    """
    if plan.router_sha256 not in (None, routers):
        raise ConfigurationError(
            "the plan is for another model: its routers are others", where=str(where),
            hint="make the plan from statistics of this model",
        )  # fmt: skip


class _Form(NamedTuple):
    """What a format can be asked; the first argument of the others is what `load` returns."""

    load: Callable[[Path], Any]
    describe: Callable[[Any], CheckpointInfo]
    recipe: Callable[[Any, SurgeryPlan], list[OutputFile]]
    routers: Callable[[Any], list[tuple[str, Range]]]


def _form(source: Path) -> _Form:
    from shared.checkpoints import (
        dllama,
        gguf,
        gguf_experts,
        gguf_surgery,
        safetensors,
        safetensors_experts,
        safetensors_surgery,
    )  # fmt: skip

    match format_of(source):
        case "gguf":
            return _Form(gguf.load, gguf_experts.describe, gguf_surgery.recipe, gguf_experts.routers)
        case "dllama":
            return _Form(dllama.parse, dllama.describe, dllama.recipe, dllama.routers)
        case "safetensors":
            experts = safetensors_experts
            return _Form(safetensors.parse, experts.describe, safetensors_surgery.recipe, experts.routers)


def format_of(source: Path) -> Literal["gguf", "safetensors", "dllama"]:
    """Tell a checkpoint's format: a directory is safetensors, a file says so in its first bytes.

    Raises:
        ConfigurationError: nothing there, or no format that is known here.
    """
    try:
        if source.is_dir():
            return "safetensors"
        with open_regular(source) as file:
            magic = file.read(4)
    except OSError as error:
        raise ConfigurationError(f"there is no such checkpoint: {error.strerror}", where=str(source)) from error
    if magic == b"GGUF":
        return "gguf"
    if magic == _DLLAMA_MAGIC:
        return "dllama"
    raise ConfigurationError(
        "not a checkpoint that is known here", where=str(source),
        hint="known: GGUF, distributed-llama .m, a directory of safetensors",
    )  # fmt: skip


def write_outputs(outputs: list[OutputFile], target: Path, *, on_progress: Count | None = None) -> None:
    """Write the described files beside `target`, make them durable and rename.

    Raises:
        DataError: a source became shorter while it was copied.
        StorageError: the disk is full.
        InfrastructureError: it fails otherwise.
    """
    single = len(outputs) == 1 and outputs[0].name == ""
    total = sum(output.size_bytes for output in outputs)
    if target.exists() and (target.is_dir() or not single):
        raise ConfigurationError("the target exists already", where=str(target), hint="remove it or choose another")
    if not target.parent.is_dir():
        raise ConfigurationError("the folder for the result does not exist", where=str(target.parent))
    if shutil.disk_usage(target.parent).free < total:
        raise StorageError(
            f"the disk is too full for {total} bytes", where=str(target), hint=room_hint(target, full=True)
        )
    written = 0

    def advance(count: int) -> None:
        nonlocal written
        written += count
        if on_progress is not None:
            on_progress(written, total)

    try:
        with atomic_write(target, folder=not single) as beside:
            for output in outputs:
                _write_pieces(output.pieces, beside / output.name if output.name else beside, advance)
    except OSError as error:
        raise InfrastructureError(f"writing failed: {error.strerror}", where=str(target)) from error


def _write_pieces(pieces: Iterable[Piece], path: Path, advance: Callable[[int], None]) -> None:
    with ExitStack() as stack:
        sources: dict[Path, int] = {}
        out = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        stack.callback(os.close, out)
        written = begun = 0

        def note(count: int) -> None:
            nonlocal written, begun
            written += count
            if written - begun >= _STEP_BYTES:
                begin_writeback(out, begun, written - begun)
                begun = written
            advance(count)

        for piece in pieces:
            if isinstance(piece, Range):
                if piece.source not in sources:
                    sources[piece.source] = os.open(piece.source, os.O_RDONLY)
                    stack.callback(os.close, sources[piece.source])
                _copy(sources[piece.source], out, piece, note)
                continue
            for data in _chunks(piece):
                _write_all(out, data)
                note(len(data))


def _chunks(piece: Inline | Zeros | Computed) -> Iterator[bytes]:
    if isinstance(piece, Inline):
        yield piece.data
    elif isinstance(piece, Zeros):
        for begin in range(0, piece.length, _BUFFER_BYTES):
            yield bytes(min(_BUFFER_BYTES, piece.length - begin))
    else:
        yield from piece.chunks()


def _write_all(out: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(out, view) :]


def _copy(source: int, out: int, piece: Range, advance: Callable[[int], None]) -> None:
    offset, left = piece.offset, piece.length
    in_kernel = True
    while left:
        if in_kernel:
            try:
                count = os.copy_file_range(source, out, min(left, _STEP_BYTES), offset)
            except OSError as error:
                if error.errno not in _NO_KERNEL_COPY:
                    raise
                in_kernel = False
                continue
        else:
            chunk = os.pread(source, min(left, _BUFFER_BYTES), offset)
            count = len(chunk)
            _write_all(out, chunk)
        if count == 0:
            raise DataError("the checkpoint became shorter while it was copied", where=str(piece.source))
        offset += count
        left -= count
        advance(count)
