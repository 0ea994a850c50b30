"""The tables of types equal the gguf library's; surgery imports nothing heavy."""

import subprocess
import sys

import gguf

from shared.checkpoints.ggml_types import FILE_TYPES, TENSOR_TYPES


def test_tables_are_the_gguf_librarys() -> None:
    assert {int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()} == TENSOR_TYPES
    known = {int(kind): kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in gguf.LlamaFileType}
    known.pop(int(gguf.LlamaFileType.GUESSED))
    assert known == FILE_TYPES


def test_surgery_loads_no_numbers_and_no_web_framework() -> None:
    code = (
        "import sys, shared.checkpoints.surgery, shared.checkpoints.gguf_surgery,"
        " shared.checkpoints.safetensors_surgery, shared.checkpoints.dllama;"
        " print(sorted({'numpy', 'gguf', 'fastapi', 'httpx', 'llama_cpp'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"
