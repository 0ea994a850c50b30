"""Steps are held against a configured model from its headers alone: what cannot be done is refused by its place."""

from typing import Any

import pytest

from shared.kernel.errors import ConfigurationError
from shared.wire.surgeries import CheckParams
from surgeon.checks import check_steps
from surgeon.settings import SurgeonSettings
from tests.support.checkpoint_factory import make_checkpoint


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> SurgeonSettings:
    root = tmp_path_factory.mktemp("checks")
    make_checkpoint(root / "model", n_layers=4, n_experts=12, experts_per_token=3)
    return SurgeonSettings(name="s", port=1, state_dir=root, models={"tiny": root / "model"})


def kind(name: str, **parameters: Any) -> dict[str, Any]:
    return {"surgery": {"kind": name, **parameters}}


def ranked(**options: Any) -> dict[str, Any]:
    return {"ranking": {"method": "reap", **options}}


def test_what_the_model_is_afterwards(settings: SurgeonSettings) -> None:
    steps = [ranked(depth=4), {"search": {"method": "naee", "depth": 2}}, kind("experts_per_token", k=2)]
    params = CheckParams.model_validate({"model": "tiny", "steps": [*steps, kind("quantize", quantization="Q8_0")]})
    after = check_steps(params, settings)
    assert (after.format, after.architecture, after.quantization) == ("gguf", "qwen3moe", "Q8_0")
    assert (after.n_layers, after.n_experts, after.experts_per_token) == (4, 6, 2)


def test_fewer_experts_than_are_active_are_right_when_fewer_become_active(settings: SurgeonSettings) -> None:
    steps = [ranked(depth=10), kind("experts_per_token", k=2)]
    assert check_steps(CheckParams.model_validate({"model": "tiny", "steps": steps}), settings).n_experts == 2


@pytest.mark.parametrize(
    ("base", "steps", "place", "says"),
    [
        ({}, [kind("lobotomy")], "surgery 1", "unknown kind"),
        ({}, [ranked(depth=1), kind("experts_per_token", k=0)], "surgery 2", "k: Input should be greater"),
        ({}, [ranked(depth=1), kind("experts_per_token", kk=2)], "surgery 2", "k: Field required|kk"),
        ({}, [ranked(depth=10)], "surgery 1", "active"),
        ({}, [ranked(depth=12)], "surgery 1", "keeps no expert"),
        ({}, [ranked(depth=1, group=[9])], "surgery 1", "bad list of layers"),
        ({}, [ranked(depth=1, group="late", layout="uniform")], "surgery 1", "uniform"),
        ({}, [ranked(depth=1, layout="biased"), ranked(depth=1)], "surgery 2", "biased"),
        ({}, [{"ranking": {"method": "random", "depth": 1, "parameters": {"seeds": 5}}}], "surgery 1", "seeds"),
        (
            {},
            [{"search": {"method": "naee", "depth": 2, "parameters": {"max_subsets": 0}}}],
            "surgery 1",
            "max_subsets",
        ),
        ({"quantization": "Q4_K_M"}, [kind("quantize", quantization="Q8_0")], "surgery 1", "Q4_K_M already"),
        ({"format": "dllama"}, [kind("quantize", quantization="Q8_0")], "surgery 1", "dllama files are not quantised"),
        ({"format": "dllama"}, [ranked(depth=1, layout="biased")], "surgery 1", "layout biased"),
        ({}, [kind("prune_experts", n_experts=8, kept=[[0, 1, 2]] * 4)], "surgery 1", "12"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_place(
    settings: SurgeonSettings, base: dict[str, Any], steps: list[Any], place: str, says: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check_steps(CheckParams.model_validate({"model": "tiny", **base, "steps": steps}), settings)
    assert place in refused.value.where
    assert any(word in f"{refused.value.message} {refused.value.hint}" for word in says.split("|")), refused.value
