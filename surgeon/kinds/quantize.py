"""Quantising with llama.cpp's own quantiser, without an importance matrix."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from pydantic import Field

from shared.checkpoints import gguf
from shared.kernel.errors import ConfigurationError
from shared.kernel.progress import Progress, no_progress
from surgeon.conversion.bases import UNQUANTISED
from surgeon.conversion.quantize import file_types, quantize
from surgeon.kinds.base import ModelFacts, Surgery
from surgeon.verification.comparison import Comparison, Verification, require


class Quantize(Surgery):
    """Quantise an F32, F16 or BF16 file."""

    kind: ClassVar[str] = "quantize"
    source: ClassVar[str] = "llama.cpp, llama_model_quantize"
    formats: ClassVar[tuple[str, ...]] = ("gguf",)

    quantization: str = Field(default="Q4_K_M", description="a type of llama.cpp")
    threads: int = Field(default=1, ge=1, exclude=True, description="the result does not depend on them")

    def check(self, model: ModelFacts) -> ModelFacts:
        """Refuse an unknown type, and a file that is quantised already."""
        if model.format not in self.formats:
            raise ConfigurationError(f"{model.format} files are not quantised", where=model.where, hint="convert first")
        if self.quantization not in file_types():
            known = ", ".join(sorted(file_types()))
            raise ConfigurationError(f"unknown quantisation {self.quantization!r}", hint=f"known: {known}")
        if model.quantization not in UNQUANTISED:
            raise ConfigurationError(
                f"the file is {model.quantization or 'of an unknown type'} already", where=model.where,
                hint="quantise the F16 file",
            )  # fmt: skip
        return model.model_copy(update={"quantization": self.quantization})

    def apply(self, base: Path, target: Path, on_progress: Progress = no_progress) -> None:
        """Let llama.cpp write the file."""
        quantize(base, target, self.quantization, threads=self.threads, on_progress=on_progress)

    def prove(self, base: Path, result: Path) -> Verification:
        """Quantise again and compare: that it is this quantisation of this base, not that llama.cpp's is a good one."""
        comparison, size_bytes = Comparison(), result.stat().st_size
        with TemporaryDirectory(dir=result.parent, prefix=f".{result.name}.") as folder:
            again = Path(folder) / "again.gguf"
            self.apply(base, again)
            require(again.stat().st_size == size_bytes, f"not the base's {self.quantization}: another size", result)
            with result.open("rb") as ours, again.open("rb") as theirs:
                comparison.equal(ours, 0, theirs, 0, size_bytes, "whole file")
        return Verification(
            format="gguf", n_tensors=len(gguf.parse(result).tensors), n_ranges=comparison.n_ranges,
            n_bytes=comparison.n_bytes,
        )  # fmt: skip


KIND = Quantize
