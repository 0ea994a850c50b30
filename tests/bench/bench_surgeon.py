"""Figures of the surgeon: apply against cp, memory, the same in memory with gguf-py, observation against evaluation.

    python -m tests.bench.bench_surgeon [--gigabytes 4] [--folder DIR] [--only apply|observe]

`cp` does not make its copy durable and `apply` does, so apply is compared with `cp` as it is and with `cp` followed by
fsync; both without fsync are printed too. Warm cache: every input is read once before. Medians of `--repeats` runs,
the modes taken in turn.
"""

import argparse
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gguf
import numpy as np

from shared.checkpoints import dllama
from shared.kernel.records import SurgeryPlan, canonical_json
from tests.support.checkpoint_factory import TEXT, make_checkpoint

N_EXPERTS, KEPT, DIM, INNER = 64, 56, 2048, 768
_CHILD = """
import sys, time
from pathlib import Path
from shared.checkpoints import surgery
from shared.kernel.records import SurgeryPlan
plan = SurgeryPlan.model_validate_json(Path(sys.argv[2]).read_bytes())
if sys.argv[4] == "nosync":
    surgery.os.fsync = lambda handle: None
    surgery.begin_writeback = lambda *place: None
started = time.perf_counter()
surgery.apply_plan(Path(sys.argv[1]), plan, Path(sys.argv[3]))
# VmHWM: ru_maxrss would count what the parent held when it forked
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(time.perf_counter() - started, int(peak.split()[1]) / 1024)
"""
_IN_MEMORY = """
import sys, time
from pathlib import Path
import gguf, numpy as np
from shared.kernel.records import SurgeryPlan
plan = SurgeryPlan.model_validate_json(Path(sys.argv[2]).read_bytes())
started = time.perf_counter()
reader = gguf.GGUFReader(sys.argv[1])
writer = gguf.GGUFWriter(sys.argv[3], "qwen3moe")
for field in reader.fields.values():
    if field.name.endswith("expert_count"):
        writer.add_uint32(field.name, len(plan.kept[0]))
    elif field.types[:1] == [gguf.GGUFValueType.UINT32] and not field.name.startswith("GGUF."):
        writer.add_uint32(field.name, int(field.contents()))
for tensor in reader.tensors:
    data = tensor.data
    if "exps" in tensor.name or "gate_inp" in tensor.name:
        data = data[list(plan.kept[int(tensor.name.split(".")[1])])]
    writer.add_tensor(tensor.name, np.array(data), raw_dtype=tensor.tensor_type)
writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()
# VmHWM: ru_maxrss would count what the parent held when it forked
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(time.perf_counter() - started, int(peak.split()[1]) / 1024)
"""


def random_block(size: int) -> bytes:
    return np.random.default_rng(0).bytes(size)


def make_gguf(path: Path, layers: int) -> None:
    """Q4_0 experts of Qwen3-30B-A3B's size."""
    writer = gguf.GGUFWriter(path, "qwen3moe")
    for add, value in (
        (writer.add_expert_count, N_EXPERTS),
        (writer.add_expert_used_count, 8),
        (writer.add_embedding_length, DIM),
    ):
        add(value)
    q4 = gguf.GGMLQuantizationType.Q4_0
    n_bytes = N_EXPERTS * DIM * INNER // 32 * 18
    block = np.frombuffer(random_block(n_bytes), np.uint8)
    for layer in range(layers):
        writer.add_tensor_info(
            f"blk.{layer}.ffn_gate_inp.weight", (N_EXPERTS, DIM), np.dtype(np.float32), 4 * N_EXPERTS * DIM
        )
        for part in ("gate", "up", "down"):
            rows, columns = (DIM, INNER) if part == "down" else (INNER, DIM)
            writer.add_tensor_info(
                f"blk.{layer}.ffn_{part}_exps.weight",
                (N_EXPERTS, rows, columns),
                np.dtype(np.float32),
                n_bytes,
                raw_dtype=q4,
            )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    router = np.zeros((N_EXPERTS, DIM), np.float32)
    for _ in range(layers):
        writer.write_tensor_data(router)
        for _ in range(3):
            writer.write_tensor_data(block)
    writer.close()


def make_safetensors(folder: Path, layers: int, shards: int = 4) -> None:
    """F16 experts, one tensor each, in shards."""
    folder.mkdir()
    block, weight_map = random_block(2 * DIM * INNER), {}
    for shard in range(shards):
        name, entries, at = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors", {}, 0
        for layer in range(shard, layers, shards):
            at_name = f"model.layers.{layer}.mlp"
            shapes = {f"{at_name}.gate.weight": (N_EXPERTS, DIM)}
            for expert in range(N_EXPERTS):
                for part in ("gate_proj", "up_proj", "down_proj"):
                    shapes[f"{at_name}.experts.{expert}.{part}.weight"] = (
                        (DIM, INNER) if part == "down_proj" else (INNER, DIM)
                    )
            for tensor, shape in shapes.items():
                size = 2 * shape[0] * shape[1]
                entries[tensor] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + size]}
                at += size
        weight_map |= dict.fromkeys(entries, name)
        header = json.dumps(entries).encode()
        with (folder / name).open("wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            for entry in entries.values():
                size = entry["data_offsets"][1] - entry["data_offsets"][0]  # type: ignore[operator]
                file.write(block[:size] if size <= len(block) else block * (size // len(block)))
    config = {"architectures": ["Qwen3MoeForCausalLM"], "num_experts": N_EXPERTS, "num_experts_per_tok": 8}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def make_dllama(path: Path, layers: int) -> None:
    """Q40 weights."""
    header = {
        "version": 0, "arch_type": dllama.QWEN3_MOE, "dim": DIM, "n_layers": layers, "n_heads": 32, "n_kv_heads": 4,
        "n_experts": N_EXPERTS, "n_active_experts": 8, "vocab_size": 1024, "weights_float_type": 2, "head_dim": 128,
        "moe_hidden_dim": INNER,
    }  # fmt: skip
    head = dllama.pack_header(header)
    total = sum(section.n_bytes for section in dllama._sections(header, len(head)))
    block = random_block(16 << 20)
    with path.open("wb") as file:
        file.write(head)
        while total > 0:
            total -= file.write(block[: min(total, len(block))])


def run(code: str, *words: str) -> tuple[float, float]:
    out = subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, text=True, timeout=1800)
    seconds, megabytes = out.stdout.split()
    return float(seconds), float(megabytes)


def copy(source: Path, target: Path, durable: bool) -> float:
    started = time.perf_counter()
    subprocess.run(["cp", "-r", str(source), str(target)], check=True)
    if durable:
        for path in (target,) if target.is_file() else tuple(target.iterdir()):
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    return time.perf_counter() - started


def remove(path: Path) -> None:
    subprocess.run(["rm", "-rf", str(path)], check=True)


def bench_apply(folder: Path, gigabytes: float, repeats: int, formats: list[str]) -> None:
    per_layer = 3 * N_EXPERTS * DIM * INNER
    kept = tuple(range(0, N_EXPERTS, 1))[4 : 4 + KEPT]
    makers = {
        "gguf": (make_gguf, per_layer * 18 / 32), "safetensors": (make_safetensors, per_layer * 2),
        "dllama": (make_dllama, per_layer * 18 / 32),
    }  # fmt: skip
    for name, (make, layer_bytes) in makers.items():
        if name not in formats:
            continue
        layers = int(-(-gigabytes * 1e9 * N_EXPERTS / KEPT // layer_bytes))
        source, target, plan_path = folder / f"base-{name}", folder / f"out-{name}", folder / "plan.json"
        make(source, layers)  # type: ignore[operator]
        plan_path.write_bytes(canonical_json(SurgeryPlan(n_experts=N_EXPERTS, kept=(kept,) * layers)))
        subprocess.run(f"cat {source}/* {source} > /dev/null 2>&1", shell=True, check=False)
        times: dict[str, list[float]] = {"apply": [], "apply nosync": [], "cp+fsync": [], "cp": []}
        rss = 0.0
        os.sync()
        for _ in range(repeats):
            for mode in ("sync", "nosync"):
                remove(target)
                os.sync()
                seconds, used = run(_CHILD, str(source), str(plan_path), str(target), mode)
                times["apply" if mode == "sync" else "apply nosync"].append(seconds)
                rss = max(rss, used)
            os.sync()
            for durable in (True, False):
                copied = folder / "copied"
                os.sync()
                times["cp+fsync" if durable else "cp"].append(copy(target, copied, durable))
                remove(copied)
        median = {key: statistics.median(values) for key, values in times.items()}
        size = sum(p.stat().st_size for p in ([target] if target.is_file() else target.iterdir())) / 1e9
        print(
            f"{name}: output {size:.2f} GB; apply {median['apply']:.2f} s, cp {median['cp']:.2f} s, ratio"
            f" {median['apply'] / median['cp']:.3f}; against cp + fsync {median['cp+fsync']:.2f} s"
            f" {median['apply'] / median['cp+fsync']:.3f}; both without fsync {median['apply nosync']:.2f} s"
            f" {median['apply nosync'] / median['cp']:.3f}; peak RSS {rss:.0f} MB",
            flush=True,
        )  # fmt: skip
        print(f"  all: { ({mode: [round(one, 2) for one in values] for mode, values in times.items()}) }", flush=True)
        if name == "gguf":
            remove(target)
            os.sync()
            seconds, used = run(_IN_MEMORY, str(source), str(plan_path), str(target))
            print(f"gguf in memory with gguf-py: {seconds:.2f} s without fsync, peak RSS {used:.0f} MB", flush=True)
        remove(source)
        remove(target)


def bench_observe(folder: Path, repeats: int) -> None:
    """Observation against plain evaluation of the same windows, on a model large enough that Python is not the load."""
    from shared.llama import model as llama
    from surgeon.conversion.to_gguf import convert
    from surgeon.observation.corpus import load_corpus, windows
    from surgeon.observation.observe import observe

    make_checkpoint(
        folder / "hf", n_layers=6, n_experts=32, experts_per_token=4, hidden=768, expert_hidden=512, vocab_size=384,
        heads=8, kv_heads=2, head_dim=64, dtype="F16",
    )  # fmt: skip
    convert(folder / "hf", folder / "model.gguf")
    (folder / "text.txt").write_text(TEXT * 8)
    corpus = load_corpus([folder / "text.txt"])
    walls: dict[str, list[float]] = {"plain": [], "observed": []}
    cpus: dict[str, list[float]] = {"plain": [], "observed": []}
    with llama.Model(folder / "model.gguf") as model:
        todo = windows(model, corpus, 512)
        for _ in range(repeats):
            with llama.Context(model, context_tokens=512, batch_tokens=512) as context:
                marks = [(time.perf_counter(), time.process_time())]
                for window in todo:
                    context.clear()
                    context.decode(window.tokens, range(len(window.tokens)))
                    marks.append((time.perf_counter(), time.process_time()))
            _note(marks, "plain", walls, cpus)
            marks = []
            observe(
                folder / "model.gguf",
                corpus,
                on_progress=lambda *_, marks=marks: marks.append((time.perf_counter(), time.process_time())),
            )
            _note(marks, "observed", walls, cpus)
    tokens = sum(len(window.tokens) for window in todo[1:])
    for what, times in (("wall", walls), ("CPU", cpus)):
        plain, observed = statistics.median(times["plain"]), statistics.median(times["observed"])
        print(
            f"observe: {tokens} tokens, {what} time: plain {plain:.2f} s, observed {observed:.2f} s,"
            f" ratio {observed / plain:.3f}",
            flush=True,
        )


def _note(
    marks: list[tuple[float, float]], name: str, walls: dict[str, list[float]], cpus: dict[str, list[float]]
) -> None:
    """Take the time from the end of the first window to the end of the last, so that loading does not count."""
    first, last = marks[1 if name == "plain" else 0], marks[-1]
    walls[name].append(last[0] - first[0])
    cpus[name].append(last[1] - first[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where to work; needs three times the size")
    parser.add_argument("--formats", default="gguf,safetensors,dllama")
    parser.add_argument("--only", choices=["apply", "observe"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        if given.only != "observe":
            bench_apply(Path(folder), given.gigabytes, given.repeats, given.formats.split(","))
        if given.only != "apply":
            bench_observe(Path(folder), given.repeats)


if __name__ == "__main__":
    main()
