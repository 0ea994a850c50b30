"""Which build of llama.cpp is installed here and what it was compiled with, asked from the library itself.

`python -m shared.llama.build` prints an `EngineBuild` as JSON: a process of its own, so that an agent that only wants
to know does not keep the library in its memory.
"""

import ctypes
import hashlib
import re
from pathlib import Path

from pydantic import Field

from shared.kernel.records import Record, Sha256

_FEATURE = re.compile(r"(\w+) = (\d+)")


class EngineBuild(Record):
    """A build of llama.cpp."""

    build: str = Field(description="what the project pins")
    ggml_version: str | None = None
    ggml_commit: str | None = Field(default=None, description="as compiled in")
    features: tuple[str, ...] = Field(description="compiled in, in llama.cpp's own words: AVX2, NEON, LLAMAFILE, ...")
    openmp: bool
    repack: bool = Field(description="weights may be repacked; over RPC they never are")
    kleidiai: bool = Field(description="ARM's kernels")
    rpc: bool
    libraries_sha256: Sha256 = Field(description="of all its libraries: equal hashes are equal machine code")

    @property
    def same_results(self) -> tuple[str, str | None]:
        """What has to be equal for two nodes to share a model: the code, not the processor that it is compiled for."""
        return self.build, self.ggml_commit


def parse_system_info(text: str) -> tuple[str, ...]:
    """Return the features that llama.cpp's system info names as present, each once, in its order."""
    return tuple(dict.fromkeys(name for name, value in _FEATURE.findall(text) if value != "0"))


def describe() -> EngineBuild:
    """Ask the library; it is loaded into this process.

    Raises:
        InfrastructureError: llama-cpp-python is not installed on this machine.
    """
    from shared.llama.library import LLAMA_BUILD, api, ggml

    module = api()
    features = parse_system_info(module.llama_print_system_info().decode("utf-8", "replace"))
    folder = Path(module.__file__).parent / "lib"
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.so")):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return EngineBuild(
        build=LLAMA_BUILD, ggml_version=_text(ggml(), "ggml_version"), ggml_commit=_text(ggml(), "ggml_commit"),
        features=features, openmp="OPENMP" in features, repack="REPACK" in features, kleidiai="KLEIDIAI" in features,
        rpc=bool(module.llama_supports_rpc()), libraries_sha256=digest.hexdigest(),
    )  # fmt: skip


def _text(library: ctypes.CDLL, name: str) -> str | None:
    function = getattr(library, name, None)
    if function is None:
        return None
    function.argtypes, function.restype = [], ctypes.c_char_p
    found: bytes | None = function()
    return None if found is None else found.decode("utf-8", "replace")


if __name__ == "__main__":
    print(describe().model_dump_json())
