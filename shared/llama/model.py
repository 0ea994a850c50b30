"""The one door to llama.cpp's C library: load, decode, read tensors; typed, silent, and safe to import without it.

Here: models and contexts, what both the surgeon and the node's engine need, and the names of `library` (how the
libraries are opened) and `tensor` (tensors in the eval callback). Not here: RPC workers and scoring
(node_agent.engines), statistics and quantisation (surgeon).
"""

import ctypes
import itertools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from shared.kernel.errors import DataError, InfrastructureError
from shared.kernel.regular_files import require_regular
from shared.llama.library import LLAMA_BUILD, api, clear_log, echo_errors, ggml, listening, log_tail
from shared.llama.tensor import Tensor

__all__ = [
    "LLAMA_BUILD", "Context", "EvalCallback", "Model", "Tensor", "api", "echo_errors", "ggml", "listening", "log_tail",
    "offloads_to_gpu",
]  # fmt: skip

_GPU_KINDS = (1, 2)
"""GGML_BACKEND_DEVICE_TYPE_GPU and _IGPU of the pinned llama.cpp's ggml-backend.h."""
EvalCallback = Callable[[Tensor, bool], bool]
"""(tensor, ask) -> with ask: "shall this tensor be shown when computed?"; without: "go on?"."""


class _Handle:
    """Something that llama.cpp has allocated; use as a context manager."""

    _free: ClassVar[str]
    pointer: Any

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free it."""
        self.close()

    def close(self) -> None:
        """Free it; safe to call twice."""
        if self.pointer:
            getattr(api(), self._free)(self.pointer)
            self.pointer = None


def offloads_to_gpu() -> bool:
    """Tell whether this build of llama.cpp has a backend for the machine's own GPU; RPC workers are none."""
    library = ggml("")
    count, device_of, kind_of = (
        library.ggml_backend_dev_count, library.ggml_backend_dev_get, library.ggml_backend_dev_type,
    )  # fmt: skip
    count.restype, device_of.restype, kind_of.restype = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int
    device_of.argtypes, kind_of.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
    return any(kind_of(device_of(index)) in _GPU_KINDS for index in range(count()))


class Model(_Handle):
    """A loaded GGUF model; use as a context manager."""

    _free = "llama_model_free"

    def __init__(
        self,
        path: Path,
        *,
        experts_per_token: int | None = None,
        vocab_only: bool = False,
        use_mmap: bool = True,
        no_alloc: bool = False,
        devices: Sequence[int] = (),
        device_shares: Sequence[float] = (),
        gpu_layers: int = 0,
        on_progress: Callable[[float], None] | None = None,
    ) -> None:
        """Load `path` on the local CPU, or with its layers split over `devices`.

        Args:
            path: the (first) GGUF file.
            experts_per_token: K override for all layers, or None for the file's own.
            vocab_only: load the tokenizer only.
            use_mmap: map the file instead of reading it.
            no_alloc: read the header only and allocate nothing: to learn what it would take.
            devices: addresses of ggml devices that hold all layers, in layer order; none: the local CPU. Tensors then
                keep the file's own layout (no repacking), so that results do not depend on the number of devices.
            device_shares: share of the layers of each device (llama.cpp's tensor_split).
            gpu_layers: layers on this machine's own GPU, where no `devices` are given; the others stay on the CPU.
            on_progress: called with 0..1.

        Raises:
            DataError: no regular file, or llama.cpp refuses it; its own words are in the message.
        """
        try:
            require_regular(path)
        except OSError as error:
            raise DataError(f"the model cannot be read: {error.strerror}", where=str(path)) from error
        lib = api()
        params = lib.llama_model_default_params()
        device_list = (ctypes.c_void_p * (len(devices) + 1))(*devices, None)
        if devices or not gpu_layers:  # else llama.cpp takes the machine's own
            params.devices = ctypes.addressof(device_list)
        params.n_gpu_layers = -1 if devices else gpu_layers
        params.split_mode = lib.LLAMA_SPLIT_MODE_LAYER
        params.use_extra_bufts = False
        if device_shares:
            shares = (ctypes.c_float * int(lib.llama_max_devices()))(*device_shares)
            params.tensor_split = shares
        params.vocab_only = vocab_only
        params.no_alloc = no_alloc
        params.load_mode = lib.LLAMA_LOAD_MODE_MMAP if use_mmap and not no_alloc else lib.LLAMA_LOAD_MODE_NONE
        overrides = None
        if experts_per_token is not None:
            architecture = _architecture_of(path)
            overrides = (lib.llama_model_kv_override * 2)()
            overrides[0].tag = lib.LLAMA_KV_OVERRIDE_TYPE_INT
            overrides[0].key = f"{architecture}.expert_used_count".encode()
            overrides[0].value.val_i64 = experts_per_token
            params.kv_overrides = overrides

        def report(fraction: float, _data: object) -> bool:
            if on_progress is not None:
                on_progress(float(fraction))
            return True

        progress = lib.llama_progress_callback(report)
        params.progress_callback = progress
        clear_log()
        self.pointer = lib.llama_model_load_from_file(str(path).encode(), params)
        if not self.pointer:
            raise DataError(f"llama.cpp cannot load the model: {log_tail()}", where=str(path))
        self.path = path
        self.vocab = lib.llama_model_get_vocab(self.pointer)
        self.n_vocab = int(lib.llama_vocab_n_tokens(self.vocab))
        self.n_embd = int(lib.llama_model_n_embd(self.pointer))
        self.n_layers = int(lib.llama_model_n_layer(self.pointer))

    def metadata(self, key: str) -> str | None:
        """Return a metadata value as text, None when the file has none."""
        buffer = ctypes.create_string_buffer(4096)
        length = api().llama_model_meta_val_str(self.pointer, key.encode(), buffer, len(buffer))
        return None if length < 0 else buffer.value.decode("utf-8", "replace")

    def tokenize(self, text: str, *, add_special: bool = False, parse_special: bool = False) -> list[int]:
        """Return the token ids of `text`."""
        data = text.encode()
        room = len(data) + 8
        tokens = (ctypes.c_int32 * room)()
        count = api().llama_tokenize(self.vocab, data, len(data), tokens, room, add_special, parse_special)
        if count < 0:
            tokens = (ctypes.c_int32 * -count)()
            count = api().llama_tokenize(self.vocab, data, len(data), tokens, -count, add_special, parse_special)
        return list(tokens[:count])

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the bytes of one token; a token may be part of a UTF-8 character."""
        buffer = ctypes.create_string_buffer(256)
        length = api().llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, special)
        return buffer.raw[:length] if length > 0 else b""

    def is_end(self, token: int) -> bool:
        """Tell whether a token ends generation."""
        return bool(api().llama_vocab_is_eog(self.vocab, token))


class Context(_Handle):
    """A KV cache and compute graph over a model; use as a context manager."""

    _free = "llama_free"

    def __init__(
        self,
        model: Model,
        *,
        context_tokens: int,
        batch_tokens: int,
        ubatch_tokens: int | None = None,
        sequences: int = 1,
        threads: int = 1,
        most_outputs: int = 0,
        cache_f32: bool = False,
        on_tensor: EvalCallback | None = None,
    ) -> None:
        """Make the context.

        Args:
            model: what to run.
            context_tokens: KV cache size over all sequences.
            batch_tokens: most tokens in one `decode`.
            ubatch_tokens: most tokens computed at once; None: as `batch_tokens`.
            sequences: number of parallel sequences; they share one cache.
            threads: CPU threads.
            most_outputs: most tokens of one `decode` that ask for logits (bounds memory); 0: all of them.
            cache_f32: keep keys and values in F32 instead of F16.
            on_tensor: eval callback; an exception inside it is raised again by `decode`.

        Raises:
            InfrastructureError: llama.cpp cannot allocate it.
        """
        lib = api()
        params = lib.llama_context_default_params()
        params.n_ctx = context_tokens
        params.n_batch = batch_tokens
        params.n_ubatch = ubatch_tokens or batch_tokens
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = threads
        params.n_outputs_max = most_outputs
        params.kv_unified = True
        if cache_f32:
            params.type_k = params.type_v = lib.GGML_TYPE_F32
            # Flash attention rounds to F16 inside: 2e-3 in log-probabilities on F32 weights, 1e-5 without it.
            params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.no_perf = True
        self._error: BaseException | None = None
        if on_tensor is not None:
            self._callback = lib.ggml_backend_sched_eval_callback(self._guarded(on_tensor))
            params.cb_eval = self._callback
        clear_log()
        self.model = model
        self.batch_tokens = batch_tokens
        self.pointer = lib.llama_init_from_model(model.pointer, params)
        if not self.pointer:
            raise InfrastructureError(
                f"llama.cpp cannot make a context: {log_tail()}", where=str(model.path), hint="try fewer tokens"
            )
        self.memory = lib.llama_get_memory(self.pointer)
        self._owner = threading.get_ident()

    def _guarded(self, on_tensor: EvalCallback) -> Callable[[int, bool, object], bool]:
        def call(address: int, ask: bool, _data: object) -> bool:
            if self._error is not None:
                return False
            try:
                return on_tensor(Tensor(address), ask)
            except BaseException as error:
                self._error = error
                return False

        return call

    def clear(self) -> None:
        """Forget all sequences."""
        api().llama_memory_clear(self.memory, True)

    def copy_sequence(self, source: int, target: int) -> None:
        """Let `target` share all cached tokens of `source`; nothing is evaluated or moved."""
        api().llama_memory_seq_cp(self.memory, source, target, -1, -1)

    def remove(self, sequence: int, from_position: int = 0) -> None:
        """Forget the tokens of `sequence` from `from_position` on."""
        api().llama_memory_seq_rm(self.memory, sequence, from_position, -1)

    def decode(
        self,
        tokens: Sequence[int] | npt.NDArray[np.int32],
        positions: Sequence[int] | npt.NDArray[np.int32],
        sequences: Sequence[int] | npt.NDArray[np.int32] | Sequence[tuple[int, ...]] | int = 0,
        outputs: Sequence[bool] | npt.NDArray[np.bool_] | bool = True,
    ) -> None:
        """Evaluate one batch; `outputs` says which tokens need logits.

        A token belongs to one sequence, or, where `sequences` holds tuples, to several that share it.

        Raises:
            InfrastructureError: llama.cpp failed, for example a full cache.
            BaseException: whatever the eval callback raised.
        """
        lib = api()
        n = len(tokens)
        token = np.ascontiguousarray(tokens, np.int32)
        position = np.ascontiguousarray(positions, np.int32)
        if not isinstance(sequences, int) and n and isinstance(sequences[0], tuple):
            counts = np.fromiter((len(ids) for ids in sequences), np.int32, n)  # type: ignore[arg-type]
            sequence = np.fromiter(itertools.chain.from_iterable(sequences), np.int32)  # type: ignore[arg-type]
        else:
            counts = np.ones(n, np.int32)
            sequence = np.ascontiguousarray(np.broadcast_to(np.asarray(sequences, np.int32), (n,)))
        wanted = np.ascontiguousarray(np.broadcast_to(np.asarray(outputs, np.int8), (n,)))
        rows = sequence.ctypes.data + 4 * (np.cumsum(counts, dtype=np.uint64) - counts.astype(np.uint64))
        int32 = ctypes.POINTER(ctypes.c_int32)
        batch = lib.llama_batch()
        batch.n_tokens = n
        batch.token = token.ctypes.data_as(int32)
        batch.pos = position.ctypes.data_as(int32)
        batch.n_seq_id = counts.ctypes.data_as(int32)
        batch.seq_id = rows.ctypes.data_as(ctypes.POINTER(int32))
        batch.logits = wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        status = int(lib.llama_decode(self.pointer, batch))
        if status == 0:
            lib.llama_synchronize(self.pointer)
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if status != 0:
            raise InfrastructureError(f"llama_decode returned {status}: {log_tail()}", where=str(self.model.path))

    def logits(self, row: int) -> npt.NDArray[np.float32]:
        """Return a view of the logits [n_vocab] of batch position `row`; valid until the next `decode`.

        Raises:
            DataError: no logits were asked for at that position.
        """
        pointer = api().llama_get_logits_ith(self.pointer, row)
        if not pointer:
            raise DataError("no logits were asked for", where=f"batch position {row}")
        return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), (self.model.n_vocab,))


def _architecture_of(path: Path) -> str:
    with Model(path, vocab_only=True) as model:
        return model.metadata("general.architecture") or "unknown"
