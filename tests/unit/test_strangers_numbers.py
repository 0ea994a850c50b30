"""Statistics and weights that are no numbers: refused with layer and expert, wherever they are read."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from shared.checkpoints import gguf, surgery
from shared.checkpoints.finite import first_not_finite, require_finite
from shared.kernel.errors import ConfigurationError, DataError
from surgeon.cli.app import app
from surgeon.conversion.to_dllama import convert_model
from surgeon.conversion.to_gguf import convert
from surgeon.observation import statistics
from surgeon.observation.corpus import load_corpus
from surgeon.observation.observe import ObserveOptions, observe
from surgeon.observation.statistics import COUNTS, GRIDS, MAXIMA, Provenance, Statistics
from surgeon.planning.plan_making import saliency_of
from surgeon.rankings.base import Array, Ranking, RankingInputs
from surgeon.rankings.registry import RANKINGS, ranking_named
from surgeon.search.offline_experts import LayerExperts
from tests.support.checkpoint_factory import TEXT, make_checkpoint

LAYERS, EXPERTS = 3, 6
run = CliRunner()


def sound() -> Statistics:
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys((*GRIDS, *COUNTS, *MAXIMA), (LAYERS, EXPERTS))
    shapes["ratio_histogram"] = (LAYERS, statistics.RATIO_BINS)
    shapes |= {name: (LAYERS, EXPERTS, 5) for name in GRIDS if "square" in name}
    values: dict[str, Array] = {
        name: np.ones(shape, np.int64 if name in COUNTS else np.float64) for name, shape in shapes.items()
    }
    provenance = Provenance(
        model_sha256="0" * 64, engine="x", corpus_sha256="0" * 64, n_layers=LAYERS, n_experts=EXPERTS,
        experts_per_token=2, window_tokens=8, reservoir_capacity=4, n_tokens={"facts": 10}, columns=True,
    )  # fmt: skip
    reservoir: dict[str, Array] = {
        "inputs": np.ones((LAYERS, 4, 7), np.float32),
        "priority": np.arange(4, dtype=np.uint64),
    }
    return Statistics(provenance, {"facts": values}, reservoir)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "statistics.safetensors"
    statistics.save(sound(), path)
    return path


def poison(path: Path, tensor: str, place: tuple[int, ...], value: float) -> None:
    from safetensors import safe_open

    with safe_open(path, "np") as stored:
        metadata = stored.metadata()
    tensors = load_file(path)
    tensors[tensor] = tensors[tensor].copy()
    tensors[tensor][place] = value
    save_file(tensors, path, metadata)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1.0])
@pytest.mark.parametrize("name", [*GRIDS, *MAXIMA, "selections"])
def test_a_sum_that_cannot_be_is_refused_with_layer_and_expert(file: Path, name: str, value: float) -> None:
    if name == "selections" and not np.isfinite(value):
        return  # whole numbers have no such value
    at = (1, 4, 3) if "square" in name else (1, 4)
    poison(file, f"domain/facts/{name}", at, value)
    with pytest.raises(DataError, match=rf"{name} of 'facts' is .* in layer 1, expert 4"):
        statistics.load(file)


@pytest.mark.parametrize("method", [name for name in RANKINGS.names() if RANKINGS.get(name).statistics])
def test_no_command_makes_a_plan_of_it(file: Path, tmp_path: Path, method: str) -> None:
    poison(file, f"domain/facts/{RANKINGS.get(method).statistics[0]}", (2, 5), -1.0)
    for command in (["plan", "--depth", "2", "-o", str(tmp_path / "plan.json")], ["rank"]):
        result = run.invoke(app, [*command, "-s", str(file), "--method", method])
        assert isinstance(result.exception, DataError) and "layer 2, expert 5" in result.exception.message
    assert not (tmp_path / "plan.json").exists()


def test_a_sample_of_inputs_that_cannot_be_is_refused(file: Path) -> None:
    poison(file, "reservoir/inputs", (1, 2, 3), np.nan)
    with pytest.raises(DataError, match="a block input of layer 1"):
        statistics.load(file)


def test_a_histogram_and_counts_that_cannot_be_are_refused(file: Path) -> None:
    poison(file, "domain/facts/ratio_histogram", (0, 7), -3)
    with pytest.raises(DataError, match="ratio_histogram of 'facts' is -3 in layer 0, bin 7"):
        statistics.load(file)


def test_none_is_written_either(tmp_path: Path) -> None:
    found = sound()
    found.domains["facts"]["norm_sum"][2, 3] = np.nan
    with pytest.raises(DataError, match="layer 2, expert 3"):
        statistics.save(found, tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("weights", [{"facts": np.nan}, {"facts": -1.0}, {"facts": 0.0}, {"facts": np.inf}])
def test_weights_of_domains_are_numbers(weights: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="weight"):
        sound().total("norm_sum", weights)


class Broken(Ranking):
    """As somebody's plug-in might be."""

    name = "broken"
    source = "none"

    def saliency(self, inputs: RankingInputs) -> Array:
        """Divide by zero."""
        values = np.ones((inputs.n_layers, inputs.n_experts))
        values[1, 2] = np.inf
        return values


def test_a_ranking_that_gives_no_numbers_is_named() -> None:
    with pytest.raises(DataError, match="method broken gives inf for layer 1, expert 2"):
        saliency_of(Broken(), RankingInputs(2, 4))


# Weights.


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model")
    make_checkpoint(root / "hf", n_layers=LAYERS)
    convert(root / "hf", root / "f32.gguf", outtype="F32")
    convert(root / "hf", root / "f16.gguf")
    (root / "text.txt").write_text(TEXT[:400])
    return root


@pytest.mark.parametrize("outtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_conversion_names_tensor_and_expert(model: Path, tmp_path: Path, outtype: str, value: float) -> None:
    source = Path(shutil.copytree(model / "hf", tmp_path / "hf"))
    poison(source / "model.safetensors", "model.layers.1.mlp.experts.7.up_proj.weight", (3, 4), value)
    with pytest.raises(DataError, match=r"blk\.1\.ffn_up_exps\.weight, expert 7: 1 of \d+ weights are NaN"):
        convert(source, tmp_path / "x.gguf", outtype=outtype)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"layers\.1\.mlp\.experts\.7\.up_proj: 1 of"):
        convert_model(source, tmp_path / "x.m", weights="F32")
    assert not list(tmp_path.glob("x.*"))


def damaged(source: Path, target: Path, name: str, expert: int) -> Path:
    """Copy a GGUF and write NaN into the middle of an expert's weights."""
    shutil.copyfile(source, target)
    tensor = gguf.parse(target).tensor(name)
    assert tensor is not None
    each, item = tensor.n_bytes // tensor.outermost, 4 if tensor.kind == 0 else 2
    with target.open("r+b") as stream:
        stream.seek(tensor.offset + expert * each + each // 2 // item * item)
        stream.write(np.array([np.nan], np.float32 if item == 4 else np.float16).tobytes())
    return target


def load_layer(path: Path) -> None:
    LayerExperts.load(path, 1)


def rank_by_weights(path: Path) -> None:
    ranking_named("aimer").saliency(RankingInputs(LAYERS, 12, model_path=path))


@pytest.mark.parametrize("base", ["f32.gguf", "f16.gguf"])
@pytest.mark.parametrize("read", [load_layer, rank_by_weights])
def test_damaged_experts_are_named(model: Path, tmp_path: Path, base: str, read: Callable[[Path], None]) -> None:
    path = damaged(model / base, tmp_path / "x.gguf", "blk.1.ffn_down_exps.weight", 5)
    with pytest.raises(DataError, match=r"blk\.1\.ffn_down_exps(\.weight)?, expert 5: 1 of"):
        read(path)


@pytest.mark.parametrize("base", ["f32.gguf", "f16.gguf"])
def test_a_damaged_router_is_named(model: Path, tmp_path: Path, base: str) -> None:
    path = damaged(model / base, tmp_path / "x.gguf", "blk.2.ffn_gate_inp.weight", 9)
    with pytest.raises(DataError, match=r"router of MoE layer 2 .* of expert 9"):
        surgery.router_sha256(path)


def test_an_observation_names_the_damaged_expert(model: Path, tmp_path: Path) -> None:
    path = damaged(model / "f32.gguf", tmp_path / "x.gguf", "blk.0.ffn_down_exps.weight", 5)
    with pytest.raises(DataError, match="of expert 5 in MoE layer 0 is NaN"):
        observe(path, load_corpus([model / "text.txt"]), ObserveOptions(window_tokens=64))


def test_numbers_are_looked_at_as_they_lie() -> None:
    require_finite(np.array([1.0, -3e38], np.float32), "x")
    require_finite(np.array([0x7F7F, 0x0000], np.uint16), "x")
    for bad in (np.array([np.nan]), np.array([0x7F80], np.uint16), np.array([np.inf], np.float16)):
        with pytest.raises(DataError, match="1 of 1"):
            require_finite(bad, "x")
    assert first_not_finite(np.array([3e38, 3e38, -1], np.float32).tobytes()) is None
    assert first_not_finite(np.array([1, np.inf, -np.inf], np.float32).tobytes()) == 1
