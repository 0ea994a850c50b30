"""Kinds of surgery: a plan is the surgeries that it holds, lists are checked as a whole, done in order and proved."""

import json
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.checkpoints import surgery
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.progress import Progress, no_progress
from shared.kernel.records import MergeMatrices, SurgeryPlan
from surgeon.conversion.quantize import quantize
from surgeon.kinds.base import ModelFacts, Surgery
from surgeon.kinds.experts_per_token import ExpertsPerToken
from surgeon.kinds.merge_experts import MergeExperts
from surgeon.kinds.plan import Plan, plan_of
from surgeon.kinds.prune_experts import PruneExperts
from surgeon.kinds.quantize import Quantize
from surgeon.kinds.registry import KINDS
from surgeon.kinds.sequence import passes, perform, prove, sequence_hash, surgeries_of
from surgeon.planning.plan_file import read_surgeries, write_plan
from surgeon.verification.comparison import Verification
from tests.support.checkpoint_factory import make_checkpoint
from tests.support.node_tiny_model import write_tiny_model

SHAPE = {"n_layers": 2, "n_experts": 4}
KEPT = ((0, 1, 3), (1, 2, 3))
MIX = MergeMatrices(
    experts=(((1.0, 0.5, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)),) * 2,
    routers=(((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)),) * 2,
)


def pruned(**changes: object) -> PruneExperts:
    return PruneExperts.model_validate({"n_experts": 4, "kept": KEPT, "method": "test", **changes})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("kinds") / "base.gguf", n_layers=2)


@st.composite
def plans(draw: st.DrawFn) -> SurgeryPlan:
    n_experts, n_layers = draw(st.integers(2, 9)), draw(st.integers(1, 4))
    layout = draw(st.sampled_from(["uniform", "biased"]))
    count = draw(st.integers(1, n_experts))

    def layer() -> tuple[int, ...]:
        size = count if layout == "uniform" else draw(st.integers(count, n_experts))
        return tuple(sorted(draw(st.permutations(range(n_experts)))[:size]))

    kept = tuple(layer() for _ in range(n_layers))
    merge = None
    if layout == "uniform" and draw(st.booleans()):
        rows = tuple(tuple(tuple(draw(st.floats(-1, 1)) for _ in range(n_experts)) for _ in ids) for ids in kept)
        merge = MergeMatrices(experts=rows, routers=rows)
    return SurgeryPlan(
        n_experts=n_experts, kept=kept, layout=layout, merge=merge, method=draw(st.sampled_from(["none", "reap"])),
        experts_per_token=draw(st.none() | st.integers(1, count)), base_sha256=draw(st.none() | st.just("a" * 64)),
        parameters=draw(st.dictionaries(st.sampled_from("abc"), st.integers() | st.booleans() | st.text(max_size=3))),
        router_sha256=draw(st.none() | st.just("b" * 64)),
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(plan=plans())
def test_a_plan_is_the_surgeries_that_it_holds(plan: SurgeryPlan) -> None:
    again = plan_of(surgeries_of(plan), plan.n_layers, plan.n_experts)
    assert again == plan and again.plan_hash() == plan.plan_hash()


def test_all_kinds_are_found() -> None:
    assert KINDS.names() == ("experts_per_token", "merge_experts", "plan", "prune_experts", "quantize")


@pytest.mark.parametrize(
    "surgeries",
    [
        (pruned(),),
        (pruned(layout="biased", kept=((0, 1, 3), (0, 1, 2, 3))),),
        (pruned(), ExpertsPerToken(k=1)),
        (pruned(), MergeExperts(matrices=MIX), ExpertsPerToken(k=3)),
        (ExpertsPerToken(k=1),),
    ],
)
def test_parts_that_follow_one_another_are_one_plan(base: Path, tmp_path: Path, surgeries: tuple[Surgery, ...]) -> None:
    (step,) = passes(surgeries, ModelFacts.of(base))
    assert isinstance(step, Plan)
    surgery.apply_plan(base, step.plan, tmp_path / "plan.gguf")
    assert perform(surgeries, base, tmp_path / "list.gguf") == step.plan.plan_hash()
    assert (tmp_path / "plan.gguf").read_bytes() == (tmp_path / "list.gguf").read_bytes()
    assert prove(surgeries, base, tmp_path / "list.gguf") == step.prove(base, tmp_path / "plan.gguf")
    if len(surgeries) == 1:
        surgeries[0].apply(base, tmp_path / "alone.gguf")
        assert (tmp_path / "alone.gguf").read_bytes() == (tmp_path / "plan.gguf").read_bytes()
        surgeries[0].prove(base, tmp_path / "alone.gguf")
        cut = surgeries[0].check(ModelFacts.of(base))
        if cut.architecture == "qwen3moe":
            after = ModelFacts.of(tmp_path / "plan.gguf")
            assert (cut.n_experts, cut.experts_per_token) == (after.n_experts, after.experts_per_token)


def test_other_surgeries_are_passes_of_their_own(base: Path, tmp_path: Path) -> None:
    surgeries = (pruned(), Quantize(quantization="Q8_0"), ExpertsPerToken(k=1))
    assert [one.kind for one in passes(surgeries, ModelFacts.of(base))] == ["plan", "quantize", "plan"]
    name = perform(surgeries, base, tmp_path / "result.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["result.gguf"], "nothing lies between any more"
    pruned().apply(base, tmp_path / "cut.gguf")
    quantize(tmp_path / "cut.gguf", tmp_path / "quantised.gguf", "Q8_0")
    ExpertsPerToken(k=1).apply(tmp_path / "quantised.gguf", tmp_path / "by-hand.gguf")
    assert (tmp_path / "by-hand.gguf").read_bytes() == (tmp_path / "result.gguf").read_bytes()

    proof = prove(surgeries, base, tmp_path / "result.gguf")
    assert proof.plan_sha256 == name == sequence_hash(passes(surgeries, ModelFacts.of(base)))
    assert proof.n_bytes > (tmp_path / "result.gguf").stat().st_size and not proof.identical
    with pytest.raises(DataError):
        prove((*surgeries[:2], ExpertsPerToken(k=2)), base, tmp_path / "result.gguf")
    damaged = bytearray((tmp_path / "quantised.gguf").read_bytes())
    damaged[-40] ^= 1
    (tmp_path / "quantised.gguf").write_bytes(damaged)
    with pytest.raises(DataError, match="not the base's"):
        prove(surgeries[:2], base, tmp_path / "quantised.gguf")


@pytest.mark.parametrize(
    ("surgeries", "said"),
    [
        ((), "no surgery is given"),
        ((pruned(), Quantize(), ExpertsPerToken(k=4)), "layer 0 keeps 3 experts, fewer than the 4 active"),
        ((Quantize(), Quantize()), "is Q4_K_M already"),
        ((ExpertsPerToken(k=1), Quantize(quantization="Q9")), "unknown quantisation 'Q9'"),
        ((pruned(), pruned()), "the plan is for 2 layers of 4 experts, the model has 2 of 3"),
        ((pruned(layout="biased"), ExpertsPerToken(k=1), pruned()), "a biased variant is cut from its base"),
        ((pruned(kept=((0, 1), (1, 2, 3))),), "needs the same number of kept experts in every layer"),
        ((pruned(kept=((0,), (1,))), ExpertsPerToken(k=2)), "keeps 1 experts, fewer than the 2 active"),
        ((pruned(), pruned(n_experts=3, kept=((0, 1),) * 2, layout="biased"), Quantize(), pruned()), "from its base"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_first_byte(
    base: Path, tmp_path: Path, surgeries: tuple[Surgery, ...], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        perform(surgeries, base, tmp_path / "result.gguf")
    assert not list(tmp_path.iterdir())


class Never(Surgery):
    """Refuses every model, and must not be asked for more."""

    kind: ClassVar[str] = "never"
    source: ClassVar[str] = "a test"
    formats: ClassVar[tuple[str, ...]] = ("gguf",)

    def check(self, model: ModelFacts) -> ModelFacts:
        raise ConfigurationError("never", where=model.where)

    def apply(self, base: Path, target: Path, on_progress: Progress = no_progress) -> None:
        raise AssertionError("it was refused")

    def prove(self, base: Path, result: Path) -> Verification:
        raise AssertionError("it was refused")


def test_a_surgery_alone_is_checked_too(base: Path, tmp_path: Path) -> None:
    for act in (perform, prove):
        with pytest.raises(ConfigurationError, match="never"):
            act((Never(),), base, tmp_path / "result.gguf")


def test_a_layout_that_the_model_cannot_have_is_refused(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "hf", n_layers=2, n_experts=4, experts_per_token=2)
    facts = ModelFacts.of(tmp_path / "hf")
    with pytest.raises(ConfigurationError, match=r"\(safetensors\) cannot be cut in the layout biased"):
        pruned(layout="biased").check(facts)
    with pytest.raises(ConfigurationError, match="safetensors files are not quantised"):
        Quantize().check(facts)


def test_a_failure_leaves_nothing_between(base: Path, tmp_path: Path) -> None:
    wrong = pruned(router_sha256="0" * 64)
    with pytest.raises(ConfigurationError, match="routers are others"):
        perform((ExpertsPerToken(k=1), Quantize(quantization="F16"), wrong), base, tmp_path / "result.gguf")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[7]", "surgery 1: a table with a kind is needed"),
        ('[{"kind": "experts_per_token", "k": 1}, {"kind": "lobotomy"}]',
         r"surgery 2: unknown kind of surgery 'lobotomy' \(known: experts_per_token,"),
        ('[{"kind": "experts_per_token", "k": 0}]', "surgery 1: k: Input should be greater than or equal to 1"),
        ('[{"kind": "quantize", "size": 1}]', "surgery 1: size: Extra inputs are not permitted"),
        ('{"kept": []}', "n_experts: Field required"),
        ("{", "Invalid JSON"),
    ],
)  # fmt: skip
def test_files_of_surgeries_are_refused_by_surgery_and_field(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "surgeries.json"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        read_surgeries(file)


def test_a_plan_file_and_a_list_are_read_alike(base: Path, tmp_path: Path) -> None:
    surgeries = (pruned(), ExpertsPerToken(k=1))
    write_plan(tmp_path / "plan.json", plan_of(surgeries, **SHAPE))
    tables = [{"kind": one.kind, **one.model_dump(mode="json")} for one in surgeries]
    (tmp_path / "list.json").write_text(json.dumps(tables))
    assert read_surgeries(tmp_path / "plan.json") == read_surgeries(tmp_path / "list.json") == surgeries


def test_finding_a_kind_imports_no_other() -> None:
    code = (
        "import sys; from surgeon.kinds.registry import KINDS; KINDS.get('plan'); "
        "sys.exit(any(name in sys.modules for name in ('surgeon.kinds.quantize', 'llama_cpp')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
