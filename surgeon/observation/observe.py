"""Collect expert statistics from the serving engine itself, through llama.cpp's eval callback.

One pass over the calibration text; the sums are those of `surgeon.observation.statistics`. Each trap that corrupted
somebody's published numbers is checked while it runs: the strided ffn_moe_topk against an independent top-k of the
router's probabilities, the sum of counts against tokens x k, the last layer against the tokens of the window (it sees
only those whose logits were requested), a warm-up (it routes through all experts), the renamed down tensor.

Not here: the text (`surgeon.observation.corpus`), the sums of one layer (`surgeon.observation.layer_sums`).
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from shared.checkpoints import gguf, surgery
from shared.checkpoints.base import CheckpointInfo
from shared.checkpoints.gguf_experts import architecture_of, describe, expert_layers, routing_of
from shared.files.durability import hash_file
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.progress import Count
from shared.llama import model as llama
from surgeon.observation.corpus import Corpus, Window, windows
from surgeon.observation.layer_sums import GATES, INNER, OUTPUTS, RANKED, Array, LayerView, layer_sums
from surgeon.observation.statistics import (
    COUNTS,
    SAME_RUN,
    Provenance,
    Statistics,
    add_into,
    load,
    merge_reservoirs,
    save,
)

_SAVE_EVERY: Final = 200
"""Windows between two saves of a resumable run."""
_NAMES: Final = ("ffn_moe_topk", *RANKED, *GATES, *OUTPUTS, "ffn_moe_out")
_ROUTER: Final = "ffn_moe_logits"
"""The router's product: its second operand is what router and experts see, which graphs name in many ways."""


@dataclass(frozen=True)
class ObserveOptions:
    """What to collect and how."""

    window_tokens: int = 512
    threads: int = 1
    max_tokens: int | None = None
    columns: bool = False
    """Also the sums of squares per input column (importance matrix, Wanda, MoE-Pruner)."""
    reservoir: int = 0
    """Block inputs to keep per layer, for NAEE's loss."""
    cache_f32: bool = False
    """Keys and values in F32, as no serving engine has them: to compare with a plain forward."""
    shard: tuple[int, int] = (0, 1)
    """(i, n): only the windows whose number leaves i when divided by n."""


class _Collector:
    """The eval callback of one window: keeps what a layer needs and folds it into the sums when the layer is done."""

    def __init__(self, file: gguf.GgufFile, info: CheckpointInfo, options: ObserveOptions) -> None:
        self._info = info
        self._options = options
        self._gating = routing_of(file).gating
        residual = architecture_of(file).residual
        names = {name: name for name in (*_NAMES, *(INNER if options.columns else ()))}
        names |= {residual: "before", _ROUTER: "inputs"}
        self._layers = expert_layers(file)
        self._wanted = {
            f"{name}-{layer}".encode(): (kept_as, row)
            for row, layer in enumerate(self._layers)
            for name, kept_as in names.items()
        }
        self._held: dict[str, Array] = {}
        self._row = -1
        self.n_tokens = 0
        self.sums: dict[str, list[Array]] = {}
        self.block_inputs: list[Array] = []

    def start(self, n_tokens: int) -> None:
        self.n_tokens = n_tokens
        self._row, self._held = -1, {}
        self.sums, self.block_inputs = {}, []

    def __call__(self, tensor: llama.Tensor, ask: bool) -> bool:
        found = self._wanted.get(tensor.raw_name)
        if found is None:
            return not ask
        if ask:
            return True
        name, row = found
        if row != self._row:
            if row != self._row + 1:
                raise DataError(f"the layers come out of order: {row} after {self._row}", where=name)
            self._row, self._held = row, {}
        self._held[name] = (tensor.source(1) if name == "inputs" else tensor).read()
        if name == "ffn_moe_out":
            self._fold(self._layers[row])
        return True

    def _fold(self, layer: int) -> None:
        view = LayerView.from_tensors(self._held, layer, self.n_tokens, self._info, self._gating)
        if self._options.columns and view.inner is None:
            raise DataError("the graph does not name what enters the down projection", where=f"layer {layer}",
                            hint="observe without columns")  # fmt: skip
        for name, value in layer_sums(view).items():
            self.sums.setdefault(name, []).append(value)
        if self._options.reservoir:
            self.block_inputs.append(view.inputs)
        self._held = {}

    def finish(self) -> dict[str, Array]:
        if self._row != self._info.n_layers - 1 or len(self.sums["selections"]) != self._info.n_layers:
            raise DataError(f"only {self._row + 1} of {self._info.n_layers} layers were seen")
        return {name: np.stack(values) for name, values in self.sums.items()}


def observe(
    model_path: Path,
    corpus: Corpus,
    options: ObserveOptions = ObserveOptions(),
    *,
    resume: Path | None = None,
    on_progress: Count | None = None,
) -> Statistics:
    """Run the model over the corpus and return its expert statistics.

    Args:
        model_path: a GGUF of any quantisation; F16 is the usual choice.
        corpus: the text.
        options: what to collect.
        resume: a file that is written now and then and read first, so that a killed run goes on.
        on_progress: called after each window with tokens so far and in all.

    Raises:
        ConfigurationError: a dense model or an unsupported architecture, before any work; a resume file of another run.
        DataError: the engine's tensors contradict each other (see the module's docstring).
    """
    file = gguf.load(model_path)
    info, row = describe(file), architecture_of(file)
    if row.no_statistics:
        raise ConfigurationError(
            f"the experts of {row.name} ({row.models}) cannot be observed: {row.no_statistics}", where=str(model_path),
            hint="a ranking by weights needs no statistics (aimer, random)",
        )  # fmt: skip
    with llama.Model(model_path) as model:
        todo = windows(model, corpus, options.window_tokens, options.max_tokens)
        i, n = options.shard
        provenance = Provenance(
            model_sha256=hash_file(model_path), engine=llama.LLAMA_BUILD, corpus_sha256=corpus.sha256,
            n_layers=info.n_layers, n_experts=info.n_experts, experts_per_token=info.experts_per_token,
            window_tokens=options.window_tokens, max_tokens=options.max_tokens, columns=options.columns,
            reservoir_capacity=options.reservoir, n_tokens={}, n_windows=len(todo),
            router_sha256=surgery.router_sha256(model_path),
            layers=None if (layers := expert_layers(file)) == tuple(range(info.n_layers)) else layers,
            expert_groups=info.expert_groups or None, expert_groups_used=info.expert_groups_used or None,
        )  # fmt: skip
        statistics = _resumed(resume, provenance) or Statistics(provenance, {})
        todo = [window for window in todo if window.number % n == i]
        return _run(model, todo, statistics, _Collector(file, info, options), options, resume, on_progress)


def _run(
    model: llama.Model, todo: list[Window], statistics: Statistics, collector: _Collector, options: ObserveOptions,
    resume: Path | None, on_progress: Count | None,
) -> Statistics:  # fmt: skip
    done = set(statistics.provenance.windows)
    total = sum(len(window.tokens) for window in todo)
    with llama.Context(
        model, context_tokens=options.window_tokens, batch_tokens=options.window_tokens, threads=options.threads,
        cache_f32=options.cache_f32, on_tensor=collector,
    ) as context:  # fmt: skip
        seen = 0
        for count, window in enumerate(todo, start=1):
            seen += len(window.tokens)
            if window.number not in done:
                collector.start(len(window.tokens))
                context.clear()
                # All logits are requested: otherwise the last layer would see only the last token.
                context.decode(window.tokens, np.arange(len(window.tokens), dtype=np.int32))
                _add_window(statistics, window, collector, options)
                if resume is not None and count % _SAVE_EVERY == 0:
                    save(statistics, resume)
            if on_progress is not None:
                on_progress(seen, total)
    return statistics


def _add_window(statistics: Statistics, window: Window, collector: _Collector, options: ObserveOptions) -> None:
    sums = collector.finish()
    values = statistics.domains.setdefault(window.domain, {})
    exact = True
    for name, value in sums.items():
        values.setdefault(name, np.zeros(value.shape, np.int64 if name in COUNTS else np.float64))
        exact &= add_into(values, name, value)
    old = statistics.provenance
    tokens = dict(old.n_tokens)
    tokens[window.domain] = tokens.get(window.domain, 0) + len(window.tokens)
    statistics.provenance = old.model_copy(
        update={
            "n_tokens": dict(sorted(tokens.items())), "exact": old.exact and exact,
            "windows": tuple(sorted((*old.windows, window.number))),
        }
    )  # fmt: skip
    statistics.domains = dict(sorted(statistics.domains.items()))
    if options.reservoir:
        sample = _sample(window, np.stack(collector.block_inputs), options.reservoir)
        parts = [part for part in (statistics.reservoir, sample) if part]
        statistics.reservoir = merge_reservoirs(parts, options.reservoir)


def _sample(window: Window, inputs: Array, capacity: int) -> dict[str, Array]:
    """Give each token of the window a priority that depends on its place only, and keep the lowest."""
    places = (f"{window.number}/{at}".encode() for at in range(len(window.tokens)))
    digests = b"".join(hashlib.blake2b(place, digest_size=8).digest() for place in places)
    priority = np.frombuffer(digests, np.uint64)
    chosen = np.argsort(priority, kind="stable")[:capacity]
    return {"priority": priority[chosen].copy(), "inputs": inputs[:, chosen].astype(np.float32)}


def _resumed(path: Path | None, provenance: Provenance) -> Statistics | None:
    if path is None or not path.exists():
        return None
    statistics = load(path)
    for name in SAME_RUN:
        if getattr(statistics.provenance, name) != getattr(provenance, name):
            raise ConfigurationError(
                f"the unfinished run differs in {name}", where=str(path), hint="remove it to start again"
            )
    return statistics
