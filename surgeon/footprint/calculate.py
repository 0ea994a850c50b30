"""The bytes of many variants and servings of one model in one quantisation; each rule is one module beside this one.

llama.cpp is asked (`llama_cpp`), so it belongs in a process of its own.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from shared.kernel.errors import ConfigurationError, EpiError
from shared.kernel.progress import Progress
from shared.llama.dry_run import DryRun
from shared.wire.footprint import Footprint, FootprintAnswer, ServingShape, VariantShape
from surgeon.footprint import distributed_llama, llama_cpp
from surgeon.footprint.headers import HollowModel, hollow_base, hollow_variant

Item = tuple[VariantShape, ServingShape]


def calculate(
    source: Path, quantization: str, items: Sequence[Item], on_progress: Progress
) -> tuple[FootprintAnswer, ...]:
    """Return the answer to each item; one that cannot be answered says why.

    Raises:
        EpiError: the model itself cannot be read, converted or quantised so.
    """
    if not items:
        return ()
    with TemporaryDirectory(prefix="epi-footprint-") as folder:
        base = hollow_base(source, quantization, Path(folder))
        engine = DryRun(max(len(serving.memory) for _, serving in items))
        answers = []
        for number, (variant, serving) in enumerate(items):
            on_progress(number / len(items), f"{number} of {len(items)}")
            answers.append(_answer(base, variant, serving, engine, Path(folder)))
        return tuple(answers)


def _answer(
    base: HollowModel, variant: VariantShape, serving: ServingShape, engine: DryRun, folder: Path
) -> FootprintAnswer:
    try:
        return FootprintAnswer(footprint=_footprint(hollow_variant(base, variant, folder), serving, engine))
    except EpiError as error:
        return FootprintAnswer(problem=error.message)


def _footprint(model: HollowModel, serving: ServingShape, engine: DryRun) -> Footprint:
    if serving.engine == "distributed-llama":
        return distributed_llama.footprint(model, serving)
    if serving.engine == "llama.cpp":
        return llama_cpp.footprint(model, serving, engine)
    raise ConfigurationError(f"no rule says what {serving.engine} takes in memory")
