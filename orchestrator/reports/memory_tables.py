"""The tables of memory: bytes on a node by what takes them, what freed boards save, two ways to the same bytes."""

from collections.abc import Iterable

from orchestrator.domain.analysis.boards import BoardSaving
from orchestrator.domain.analysis.iso_memory import ALIKE, IsoMemoryPair
from orchestrator.domain.run.records import NodeMemoryUse
from orchestrator.reports.rendering import change, change_of_log, number
from orchestrator.reports.tables import Table
from orchestrator.results.read_model import CampaignResults

_MIB = 1 << 20


def memory_table(data: CampaignResults) -> Table | None:
    """Return calculated, reported and measured bytes on each one's fullest node; None where none are known."""
    rows = []
    for item in data.configurations:
        uses = [use for run in data.inputs.get(item.id, ())[:1] for use in run.memory.items()]
        known = [(name, use) for name, use in uses if use.calculated is not None]
        if known:
            name, fullest = max(known, key=lambda one: one[1].calculated.needed if one[1].calculated else 0)
            rows.append(_memory_row(item.id, len(uses), name, fullest))
    if not rows:
        return None
    return Table(
        title="Memory",
        head=(
            "configuration", "nodes", "fullest node", "experts", "other weights", "cache", "buffers", "calculated",
            "engine reports", "needed", "can give", "engine peak", "worker peak",
        ),
        rows=tuple(rows),
        note="MiB on the node that needs most, calculated before the model was made. `calculated` is what the engine"
        " reports as it loads: weights, cache, compute and output buffers; `needed` adds what is held only while"
        " loading or scoring, and the processes. Peaks are largest resident sets; the engine's has pages of the model"
        " file in it, which the kernel may drop. Other servings that hold as few bytes, such as `baseline.q3_k_s`, are"
        " compared with pruning where the campaign measures them. Every node's bytes by class of tensor are in"
        " `campaign.json` and `run_NNN.json` under `memory`.",
    )  # fmt: skip


def boards_table(data: CampaignResults) -> Table | None:
    """Return what configurations on fewer boards than their reference save; None where there are none.

    Reports of campaigns that an earlier version measured stay as they were.
    """
    if not data.campaign.memory or not data.board_savings:
        return None
    return Table(
        title="Freed boards",
        head=(
            "configuration", "boards", "reference", "its boards", "freed boards idle W", "J/token, freed off",
            "J/token, freed idle", "EPI, freed off", "EPI, freed idle",
        ),
        rows=tuple(_board_row(saving) for saving in data.board_savings),
        note="Changes against the reference, medians over repetitions. Off: boards that are not needed are powered off,"
        " so that only those in use count, as in all other tables. Idle: they stay on, and their idle power, as other"
        " runs of this campaign measured it, is added for both. What is saved by switching boards off is not saved by"
        " leaving them idle.",
    )  # fmt: skip


def iso_memory_table(data: CampaignResults) -> Table | None:
    """Return pruned against unpruned at fewer bits, of about the same bytes; None where no such pair was measured."""
    if not any(pair.unpruned for pair in data.iso_memory):
        return None
    return Table(
        title="The same bytes: pruned, or fewer bits",
        head=("pruned", "its file MiB", "unpruned at fewer bits", "its file MiB", "EPI, pruned against unpruned"),
        rows=tuple(map(_iso_row, data.iso_memory)),
        note=f"Files that differ by at most {ALIKE:.0%}, by calculated size. Intervals are 95 % of each pair alone, not"
        " corrected: to have a pair tested, name it under `references`. Where none was measured, `epi surgery fit MODEL"
        " --quantization Q3_K_S` tells which quantisation has the bytes; add it as `baseline.q3_k_s`.",
    )


def _memory_row(name: str, n_nodes: int, node: str, use: NodeMemoryUse) -> tuple[str, ...]:
    fit = use.calculated
    assert fit is not None
    experts = fit.bytes.weights.get("experts", 0)
    sizes: Iterable[int | None] = (
        experts, fit.bytes.weight_bytes - experts, fit.bytes.cache, fit.bytes.compute + fit.bytes.output,
        fit.bytes.buffers, use.reported.total if use.reported else None, fit.needed, fit.usable,
        use.engine_peak_rss_bytes, use.worker_peak_rss_bytes,
    )  # fmt: skip
    return (name, str(n_nodes), node, *map(_mebibytes, sizes))


def _board_row(saving: BoardSaving) -> tuple[str, ...]:
    shares = (saving.joules_off, saving.joules_idle, saving.epi_off, saving.epi_idle)
    return (
        saving.use.configuration, str(len(saving.use.nodes)), saving.reference.configuration,
        str(len(saving.reference.nodes)), number(saving.use.freed_idle_watts, 3),
        *("-" if share is None else change(share) for share in shares),
    )  # fmt: skip


def _iso_row(pair: IsoMemoryPair) -> tuple[str, ...]:
    if pair.unpruned is None:
        return (pair.pruned, _mebibytes(pair.pruned_bytes), "none measured", "-", "-")
    compared = "-"
    if pair.log_epi_ratio is not None and pair.interval is not None:
        low, high = map(change_of_log, pair.interval)
        compared = f"{change_of_log(pair.log_epi_ratio)} [{low}, {high}]"
    return (pair.pruned, _mebibytes(pair.pruned_bytes), pair.unpruned, _mebibytes(pair.unpruned_bytes), compared)


def _mebibytes(size: int | None) -> str:
    return "-" if size is None else f"{size / _MIB:.1f}"
