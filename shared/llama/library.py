"""llama.cpp's shared libraries: opened once, the right files, their log in memory. Use through `shared.llama.model`.

- The ggml libraries are opened as `libggml*.so.0`. The wheel holds copies instead of symbolic links, so `libggml.so`
  is another file with its own, empty registry of backends.
- llama.cpp writes its log to stderr unless told otherwise: here it is kept in memory (`log_tail`), and the last lines
  become part of the error when something fails.
"""

import ctypes
import functools
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from shared.kernel.errors import InfrastructureError

_LOG_LINES = 200
_log: deque[str] = deque(maxlen=_LOG_LINES)
_echo: list[TextIO] = []  # where errors are also written, for processes that llama.cpp may abort
_listeners: list[Callable[[str], None]] = []
_LEVEL_ERROR = 4
_keep: list[Any] = []  # callbacks that the C side holds a pointer to

LLAMA_BUILD = "llama.cpp 0c1e570 (llama-cpp-python 0.3.36)"


@functools.cache
def api() -> Any:
    """Return the low-level ctypes module `llama_cpp`, initialised and silenced.

    Raises:
        InfrastructureError: llama-cpp-python is not installed on this machine.
    """
    try:
        import llama_cpp
    except (ImportError, RuntimeError, OSError) as error:
        raise InfrastructureError(
            f"llama.cpp cannot be loaded: {error}", where="llama-cpp-python",
            hint="CMAKE_ARGS=-DGGML_RPC=ON pip install 'epi-factory[node]'",
        ) from error  # fmt: skip

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator,unused-ignore]
    def keep(level: int, text: bytes, _data: object) -> None:
        _log.append(text.decode("utf-8", "replace"))
        for listener in _listeners:
            listener(_log[-1])
        if level == _LEVEL_ERROR:
            for stream in _echo:
                stream.write(_log[-1])
                stream.flush()

    _keep.append(keep)
    llama_cpp.llama_log_set(keep, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return llama_cpp


@functools.cache
def ggml(part: str = "base") -> ctypes.CDLL:
    """Return `libggml-<part>.so.0` of the very build that `api` uses; `part` "" is libggml itself."""
    folder = Path(api().__file__).parent / "lib"
    library = ctypes.CDLL(str(folder / (f"libggml-{part}.so.0" if part else "libggml.so.0")))
    if part == "base":
        library.ggml_nbytes.argtypes = [ctypes.c_void_p]
        library.ggml_nbytes.restype = ctypes.c_size_t
        for name in ("ggml_backend_tensor_get", "ggml_backend_tensor_set"):
            function = getattr(library, name)
            function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
            function.restype = None
    return library


@contextmanager
def listening(listener: Callable[[str], None]) -> Iterator[None]:
    """Call `listener` with every piece of llama.cpp's log while the block runs: its only report of progress."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def log_tail(lines: int = 3) -> str:
    """Return the last complete lines llama.cpp logged, oldest first."""
    text = "".join(_log).splitlines()
    return " | ".join(line.strip() for line in text[-lines:] if line.strip("."))


def echo_errors(stream: TextIO) -> None:
    """Also write llama.cpp's error lines to `stream`: an abort inside the library loses what is kept in memory."""
    _echo.append(stream)


def clear_log() -> None:
    """Forget what was logged, so that `log_tail` speaks of what comes next."""
    _log.clear()
