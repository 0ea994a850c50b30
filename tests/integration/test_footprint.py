"""The calculated bytes on each node against what llama.cpp itself reports when it has loaded the model over RPC."""

from pathlib import Path

import pytest

from shared.checkpoints import surgery
from shared.kernel.progress import no_progress
from shared.kernel.records import SurgeryPlan
from shared.wire.footprint import FootprintAnswer, NodeFootprint, ServingShape, VariantShape
from shared.wire.node_jobs.engines import EngineBuffers, StartEngineResult
from surgeon.conversion.quantize import quantize
from surgeon.conversion.to_gguf import convert
from surgeon.work.child import run_in_child
from surgeon.work.tasks import FootprintTask
from tests.support.engine_lab import EngineLab, ModelFiles, engine_lab
from tests.support.shaped_model import write_quantised, write_shaped_model
from tests.support.tiny_models import RECIPES, make_model

DEMO = Path(__file__).parents[2] / "demo" / "model"
NODES = (1, 2, 4)
TOLERANCE = 0.03
_LOGGED_BYTES = 4 * (5243 + 1)
"""llama.cpp logs hundredths of a MiB; what is read of its at most four buffers on a device is rounded up."""
_MEMORY = 1 << 34
WHOLE = VariantShape()


async def _calculated(source: Path, variant: VariantShape = WHOLE) -> list[FootprintAnswer]:
    servings = [ServingShape(memory=(_MEMORY,) * n, context_tokens=2048, sequences=8) for n in NODES]
    task = FootprintTask(
        source=source, quantization="Q4_K_M", items=tuple((variant, serving) for serving in servings)
    )  # fmt: skip
    return list((await run_in_child(task, no_progress)).footprints)


async def _reported(lab: EngineLab) -> list[EngineBuffers]:
    """Return what the engine reports for each node, the root first: its own process counts with its worker."""
    result: StartEngineResult = await lab.start(context_tokens=2048, sequences=8)
    by_worker = {one.worker: one for one in result.buffers}
    own = by_worker.pop(None)
    found = [by_worker[worker.endpoint] for worker in lab.workers]
    root = EngineBuffers(
        model=found[0].model + own.model, cache=found[0].cache + own.cache, compute=found[0].compute + own.compute,
        output=own.output,
    )  # fmt: skip
    return [root, *found[1:]]


def _check(calculated: NodeFootprint, reported: EngineBuffers, where: str) -> None:
    said = (where, calculated, reported)
    assert calculated.buffers >= reported.total - 2 * _LOGGED_BYTES, said
    assert calculated.buffers <= reported.total * (1 + TOLERANCE), said
    assert calculated.weight_bytes >= reported.model - 2 * _LOGGED_BYTES, said
    assert calculated.cache >= reported.cache - _LOGGED_BYTES, said
    assert calculated.needed > calculated.buffers


async def _compare(folder: Path, model: Path, answers: list[FootprintAnswer]) -> None:
    for n_nodes, answer in zip(NODES, answers, strict=True):
        assert answer.footprint is not None, answer.problem
        assert answer.footprint.file_bytes == model.stat().st_size
        async with engine_lab("llama.cpp", folder / str(n_nodes), ModelFiles(model), n_nodes) as lab:
            for node, (mine, theirs) in enumerate(
                zip(answer.footprint.nodes, await _reported(lab), strict=True)
            ):  # fmt: skip
                _check(mine, theirs, f"node {node + 1} of {n_nodes}")


@pytest.fixture(scope="module")
def demo_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give the demo model in Q4_K_M, half of its experts gone, and in the layout biased."""
    folder = tmp_path_factory.mktemp("demo")
    convert(DEMO, folder / "f16.gguf")
    quantize(folder / "f16.gguf", folder / "whole.gguf", "Q4_K_M")
    info = surgery.describe(folder / "whole.gguf")
    half = tuple(range(info.n_experts // 2))
    for name, layout in (("half", "uniform"), ("biased", "biased")):
        plan = SurgeryPlan.model_validate(
            {"n_experts": info.n_experts, "kept": (half,) * info.n_layers, "layout": layout}
        )
        surgery.apply_plan(folder / "whole.gguf", plan, folder / f"{name}.gguf")
    return {name: folder / f"{name}.gguf" for name in ("whole", "half", "biased")}


@pytest.mark.parametrize("name", ["whole", "half", "biased"])
async def test_the_demo_model(tmp_path: Path, demo_models: dict[str, Path], name: str) -> None:
    """From the safetensors alone: the bytes of the quantised and cut file, before either exists."""
    info = surgery.describe(demo_models["whole"])
    half = (info.n_experts // 2,) * info.n_layers
    variant = {
        "whole": VariantShape(), "half": VariantShape(kept=half), "biased": VariantShape(kept=half, layout="biased"),
    }[name]  # fmt: skip
    answers = await _calculated(DEMO, variant)
    # A plan's own text lies in the file's metadata: its length is the plan's.
    model = demo_models[name]
    for answer in answers:
        assert answer.footprint is not None, answer.problem
        assert abs(answer.footprint.file_bytes - model.stat().st_size) < 4096
    sized = [
        answer.model_copy(
            update={"footprint": answer.footprint and answer.footprint.model_copy(
                update={"file_bytes": model.stat().st_size}
            )}
        )
        for answer in answers
    ]  # fmt: skip
    await _compare(tmp_path, model, sized)


@pytest.mark.slow
async def test_four_layers_of_qwen3_30b_a3b(tmp_path: Path) -> None:
    """True shapes, 1.9 GB of holes: loaded on 1, 2 and 4 workers."""
    source = write_shaped_model(tmp_path / "f16.gguf")
    model = write_quantised(source, tmp_path / "q4.gguf")
    await _compare(tmp_path, model, await _calculated(source))


async def test_shapes_of_qwen3_30b_a3b_without_loading_them(tmp_path: Path) -> None:
    """48 layers of 128 experts: sizes that are published, and half of the experts on one board of 16 GB."""
    source = write_shaped_model(tmp_path / "f16.gguf", n_layers=48)
    whole, half = [
        (await _calculated(source, variant))[0].footprint
        for variant in (VariantShape(), VariantShape(kept=(64,) * 48))
    ]  # fmt: skip
    assert whole is not None and half is not None
    assert whole.file_bytes / 2**30 == pytest.approx(17.3, abs=0.1)
    assert half.file_bytes / 2**30 == pytest.approx(9.1, abs=0.1)
    assert whole.needed[0] > 16 << 30 > half.needed[0]


async def test_a_graph_that_is_larger_for_one_sequence_than_for_many_counts_as_that(tmp_path: Path) -> None:
    """MiniMax-01's: llama.cpp reserves both, but its dry run measures only the one of many."""
    model = make_model(tmp_path / "model.gguf", RECIPES["minimax-01"])
    servings = [ServingShape(memory=(_MEMORY,), context_tokens=256, sequences=count) for count in (2, 64)]
    task = FootprintTask(source=model, quantization="", items=tuple((WHOLE, serving) for serving in servings))
    few, many = [answer.footprint for answer in (await run_in_child(task, no_progress)).footprints]
    assert few is not None and many is not None
    assert many.nodes[0].compute >= few.nodes[0].compute > 0
