"""`epi surgery`: text and checkpoint in, proved variant out; every command speaks JSON; errors are one message."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.checkpoint_factory import TEXT, make_checkpoint


def epi(folder: Path, *words: str, fails: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-c", "from shared.cli import main; main()", "surgery", *words],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == fails, done.stderr
    return done.stdout if not fails else done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cli")
    make_checkpoint(root / "hf", n_layers=4, n_experts=12, experts_per_token=3)
    (root / "facts.txt").write_text(TEXT)
    (root / "sanity.jsonl").write_text('{"id": "one", "prompt": "The river", "expect": "x"}\n')
    return root


def test_from_checkpoint_to_proof(folder: Path) -> None:
    made = json.loads(epi(folder, "convert", "hf", "f16.gguf", "--json"))
    assert made["size_bytes"] == (folder / "f16.gguf").stat().st_size
    epi(folder, "quantize", "f16.gguf", "q.gguf", "Q8_0")
    for shard in ("0/2", "1/2"):
        epi(folder, "observe", "f16.gguf", "facts.txt", "-o", f"s{shard[0]}", "--shard", shard, "--window", "64")
    merged = json.loads(epi(folder, "merge", "s0", "s1", "-o", "all", "--json"))
    assert merged["windows"] == merged["windows_of_corpus"] > 1
    ranked = json.loads(epi(folder, "rank", "-s", "all", "--method", "ean", "--json"))
    assert [len(row) for row in ranked["saliency"]] == [12] * 4
    chosen = ("--method", "ean", "--depth", "2", "--group", "1,3", "--layout", "biased")
    epi(folder, "plan", "-s", "all", *chosen, "-o", "p.json")
    plan = json.loads((folder / "p.json").read_text())
    assert [len(ids) for ids in plan["kept"]] == [12, 10, 12, 10]
    lowest = sorted(sorted(range(12), key=lambda expert: ranked["saliency"][1][expert])[:2])
    assert sorted(set(range(12)) - set(plan["kept"][1])) == lowest
    epi(folder, "plan", "-s", "all", "--keep", "12,9,12,8", "--layout", "biased", "-o", "list.json")
    assert [len(ids) for ids in json.loads((folder / "list.json").read_text())["kept"]] == [12, 9, 12, 8]
    epi(folder, "apply", "q.gguf", "p.json", "variant.gguf")
    assert "proved" in epi(folder, "verify", "q.gguf", "p.json", "variant.gguf")
    verdict = epi(folder, "validate", "variant.gguf", "--baseline", "q.gguf", "--heldout", "facts.txt",
                  "--max-perplexity-ratio", "0.001", "--json", fails=3)  # fmt: skip
    assert not json.loads(verdict.splitlines()[0])["ok"]
    assert json.loads(epi(folder, "info", "q.gguf", "--json"))["n_experts"] == 12


def test_errors_are_one_message(folder: Path) -> None:
    for words, message in (
        (("plan", "--depth", "2", "-o", "x"), "give --statistics or --model"),
        (("rank", "--method", "guess", "-m", "x"), "unknown method 'guess'"),
        (("info", "facts.txt"), "not a checkpoint"),
        (("apply", "hf", "nothing.json", "x"), "cannot read the plan"),
        (("convert", "nowhere", "x.gguf"), "cannot read it"),
    ):
        said = epi(folder, *words, fails=1)
        assert message in said and "Traceback" not in said


def test_methods_are_listed_with_sources(folder: Path) -> None:
    methods = json.loads(epi(folder, "methods", "--json"))
    assert {"random", "frequency", "soft_activation", "ean", "weighted_ean", "reap", "easy_ep", "aimer"} <= set(methods)
    assert all(method["source"] for method in methods.values())


def test_searches(folder: Path) -> None:
    words = TEXT.split()
    lines = [
        {"question": " ".join(words[n : n + 5]), "choices": [words[n + 5], words[n + 9]], "answer": n % 2}
        for n in range(12)
    ]
    (folder / "q.jsonl").write_text("\n".join(map(json.dumps, lines)))
    epi(folder, "convert", "hf", "search.gguf")
    make_checkpoint(folder / "other", n_layers=4, n_experts=12, experts_per_token=3, seed=1)
    epi(folder, "observe", "search.gguf", "facts.txt", "-o", "deep.st", "--reservoir", "16", "--max-tokens", "100")
    naee = json.loads(
        epi(folder, "search", "naee", "search.gguf", "--depth", "2", "-s", "deep.st", "-o", "n.json", "--json")
    )
    assert naee["exhaustive"] and len(naee["losses"]) == 4
    few = ("--iterations", "1", "--offspring", "2", "--json")
    task = ("search.gguf", "--depth", "6", "--questions", "q.jsonl={question}", "-o", "e.json", *few)
    assert "another number" in epi(folder, "search", "eep", *task, "--start", "n.json", fails=1)
    epi(folder, "search", "eep", *task)
    merge = ("search.gguf", "--plan", "e.json", "--questions", "q.jsonl", "-o", "m.json", *few)
    assert 0 <= json.loads(epi(folder, "search", "eep-merge", *merge))["validation_accuracy"] <= 1
    assert len(json.loads((folder / "m.json").read_text())["merge"]["experts"][3]) == 6
    for base in ("search.gguf", "hf"):
        epi(folder, "apply", base, "m.json", f"merged-{base}")
        assert "proved" in epi(folder, "verify", base, "m.json", f"merged-{base}")
        assert json.loads(epi(folder, "info", f"merged-{base}", "--json"))["n_experts"] == 6
    assert "the plan is for another model" in epi(folder, "apply", "other", "n.json", "x", fails=1)
    skip = ("search.gguf", "-s", "deep.st", "--questions", "q.jsonl", "--json")
    skipped = json.loads(epi(folder, "search", "skipping", *skip))
    assert 0 < skipped["tasks"][0]["share_skipped"] < 1 and not skipped["saves_energy_on_stock_engines"]


def test_distributed_llama_files_from_the_command_line(folder: Path) -> None:
    epi(folder, "convert", "hf", "model.m")
    assert json.loads(epi(folder, "info", "model.m", "--json"))["quantization"] == "Q40"
    assert "name the target NAME.m" in epi(folder, "convert", "hf", "x.gguf", "--outtype", "Q40", fails=1)
