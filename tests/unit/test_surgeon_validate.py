"""The quality gate: what is no text, what stops a variant, and what does not."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from shared.kernel.errors import ConfigurationError, DataError
from shared.wire.surgeon_jobs import PromptCompletion
from surgeon import settings as surgeon_settings
from surgeon.conversion.quantize import file_types, quantize
from surgeon.conversion.to_gguf import convert
from surgeon.quality.gate import verdict
from surgeon.quality.sanity import Evaluation, SanityPrompt, degenerate_reason, evaluate, judge, load_prompts
from tests.support.checkpoint_factory import TEXT, make_checkpoint
from tests.support.numpy_forward import NumpyQwen3Moe


@pytest.mark.parametrize(
    ("tokens", "answer", "reason"),
    [
        ([], b"", "empty"),
        ([1, 1], b" \n", "empty"),
        ([1, 2, 3], b"a\xff\xfeb and more text", "not UTF-8"),
        ([5] * 20, b"ha" * 20, "repeats 1"),
        ([1, 2, 3, 4, 5, 6] + [7, 8] * 8, b"well " * 5, "repeats 2"),
        (list(range(16)) + [1, 2, 3, 4] * 4, b"text", "repeats 4"),
    ],
)
def test_no_text(tokens: list[int], answer: bytes, reason: str) -> None:
    assert reason in degenerate_reason(tokens, answer)


def test_text_is_text() -> None:
    assert degenerate_reason([1, 2, 3, 1, 2, 3, 9, 4], "ein Süßes".encode()) == ""
    assert degenerate_reason(list(range(9)), "cut in the middle of ä".encode()[:-1]) == ""
    assert degenerate_reason([7, 7, 7], b"ho ho ho") == "", "three of a kind is no loop yet"


def test_expected_answers() -> None:
    prompt = SanityPrompt.model_validate({"id": "1", "prompt": "Capital of France?", "expect": "paris"})
    assert judge(prompt, [1, 2], b" It is Paris.").ok
    wrong = judge(prompt, [1, 2], b" It is Rome.")
    assert not wrong.ok and "paris" in wrong.reason


def test_prompt_files_name_the_line_at_fault(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "a", "expect": ["x", "y"]}\n\n{"prompt": ""}\n')
    with pytest.raises(ConfigurationError, match=r"p\.jsonl:3"):
        load_prompts(path)
    path.write_text('{"prompt": "a", "expect": ["x", "y"]}\n')
    assert load_prompts(path)[0].expect == ("x", "y")


def answers(*reasons: str) -> tuple[PromptCompletion, ...]:
    return tuple(PromptCompletion(prompt=f"p{n}", answer="", ok=not r, reason=r) for n, r in enumerate(reasons))


def test_the_gate() -> None:
    loop, wrong = "degenerate: repeats 1 token(s)", "expected one of: x"
    good = Evaluation(perplexity=10.0, answers=answers("", "", "", ""))
    assert verdict(good, good, max_perplexity_ratio=2).ok
    assert verdict(
        Evaluation(perplexity=19.0, answers=answers(wrong, wrong, wrong, loop)), good, max_perplexity_ratio=2
    ).ok
    worse = verdict(Evaluation(perplexity=21.0, answers=good.answers), good, max_perplexity_ratio=2)
    assert not worse.ok and "2.1 times" in worse.reason
    broken = Evaluation(perplexity=10.0, answers=answers(loop, loop, loop, ""))
    assert "3 of 4" in verdict(broken, good, max_perplexity_ratio=2).reason
    assert verdict(broken, broken, max_perplexity_ratio=2).ok, "the baseline does the same"
    assert not verdict(broken, None, max_perplexity_ratio=2).ok


def test_perplexity_is_that_of_a_plain_forward(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "hf", n_layers=1, n_experts=4, experts_per_token=2)
    convert(tmp_path / "hf", tmp_path / "f32.gguf", outtype="F32")
    (tmp_path / "held.txt").write_text(TEXT[:300])
    found = evaluate(tmp_path / "f32.gguf", heldout=tmp_path / "held.txt", prompts=None)
    from shared.llama import model as llama

    with llama.Model(tmp_path / "f32.gguf") as model:
        tokens = model.tokenize(TEXT[:300])
    log_p, _ = NumpyQwen3Moe(tmp_path / "hf").forward(tokens)
    expected = np.exp(-np.mean([log_p[at, token] for at, token in enumerate(tokens[1:])]))
    assert found.n_tokens == len(tokens) - 1
    assert found.perplexity == pytest.approx(expected, rel=0.02)


def test_conversion_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "hf", n_layers=1, n_experts=4, experts_per_token=2)

    def attempt(**changes: object) -> None:
        shutil.copytree(tmp_path / "hf", tmp_path / "bad", dirs_exist_ok=True)
        config = json.loads((tmp_path / "hf" / "config.json").read_text()) | changes
        (tmp_path / "bad" / "config.json").write_text(json.dumps(config))
        convert(tmp_path / "bad", tmp_path / "x.gguf")

    for changes, message in (
        ({"architectures": ["LlamaForCausalLM"]}, "LlamaForCausalLM"),
        ({"norm_topk_prob": False}, "renormalises"),
        ({"mlp_only_layers": [0]}, "dense"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "rope scaling"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            attempt(**changes)
    with pytest.raises(DataError, match=r"config\.json says 5 experts"):
        attempt(num_experts=5)
    with pytest.raises(DataError, match="token id"):
        attempt(vocab_size=300)
    tokenizer = (tmp_path / "hf" / "tokenizer.json").read_text()
    (tmp_path / "hf" / "tokenizer.json").write_text(tokenizer.replace("\\\\p{L}+", "\\\\p{L}"))
    with pytest.raises(ConfigurationError, match="pre-tokenizer"):
        attempt()
    assert not list(tmp_path.glob("*.gguf")) and not list(tmp_path.glob(".*partial"))


def test_values_beyond_f16_are_refused_and_bf16_keeps_them(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = make_checkpoint(tmp_path / "hf", n_layers=1, n_experts=4, experts_per_token=2)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.experts.1.up_proj.weight"][0, 0] = 1e6
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(DataError, match="F16"):
        convert(folder, tmp_path / "x.gguf")
    convert(folder, tmp_path / "x.gguf", outtype="BF16")


def test_quantisations(tmp_path: Path) -> None:
    assert {"Q4_K_M", "Q4_0", "Q8_0", "IQ4_XS", "BF16"} <= set(file_types())
    with pytest.raises(ConfigurationError, match="unknown quantisation"):
        quantize(tmp_path / "x", tmp_path / "y", "Q5_Z")
    make_checkpoint(tmp_path / "hf", n_layers=1, n_experts=4, experts_per_token=2)
    convert(tmp_path / "hf", tmp_path / "f16.gguf")
    seen: list[float] = []
    quantize(tmp_path / "f16.gguf", tmp_path / "q.gguf", "Q8_0", on_progress=lambda fraction, _: seen.append(fraction))
    assert seen == sorted(seen) and seen[-1] == 1.0
    quantize(tmp_path / "f16.gguf", tmp_path / "again.gguf", "Q8_0", threads=2)
    assert (tmp_path / "q.gguf").read_bytes() == (tmp_path / "again.gguf").read_bytes()
    make_checkpoint(tmp_path / "wide", n_layers=1, n_experts=4, experts_per_token=2, hidden=256, expert_hidden=256)
    convert(tmp_path / "wide", tmp_path / "f16.gguf")
    with pytest.raises(DataError, match="imatrix"):
        quantize(tmp_path / "f16.gguf", tmp_path / "z.gguf", "IQ1_S")
    assert not (tmp_path / "z.gguf").exists()


def test_settings_are_relative_to_their_file(tmp_path: Path) -> None:
    path = tmp_path / "surgeon.toml"
    path.write_text(
        'name = "s"\nport = 9000\nstate_dir = "state"\n[models]\ndemo = "model"\n[corpora]\nc = ["a.txt"]\n'
    )
    found = surgeon_settings.load(path)
    assert found.models["demo"] == tmp_path / "model" and found.corpora["c"] == (tmp_path / "a.txt",)
    assert found.state_dir == tmp_path / "state"
    path.write_text(path.read_text() + "colour = 1\n")
    with pytest.raises(ConfigurationError, match="colour"):
        surgeon_settings.load(path)
