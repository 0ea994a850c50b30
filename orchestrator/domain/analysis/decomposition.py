"""Where the joules go: static power x time and dynamic energy; and time per token into overhead, compute, bandwidth."""

from collections.abc import Sequence
from statistics import median

import numpy as np
from pydantic import Field
from scipy import optimize

from orchestrator.domain.run.evaluate import RunEvaluation
from shared.kernel.records import Configuration, ConfigurationId, Record

BITS_PER_WEIGHT = {
    "F32": 32.0, "F16": 16.0, "BF16": 16.0, "Q8_0": 8.5, "Q80": 8.5, "Q6_K": 6.5625, "Q5_K_M": 5.69, "Q4_K_M": 4.85,
    "Q4_0": 4.5, "Q40": 4.5, "Q3_K_M": 3.91, "Q2_K": 3.35,
}  # fmt: skip
"""Mean bits a weight of llama.cpp's types; the _M mixtures are those of its quantize tool's help for 7B models."""


class EnergyShares(Record):
    """Joules per token of the headline basis, medians over repetitions: idle power x time, and what the work adds."""

    configuration_id: ConfigurationId
    static_joules_per_token: float
    dynamic_joules_per_token: float
    static_share: float
    seconds_per_token: float


class Roofline(Record):
    """Seconds per token = overhead + compute x K + bandwidth x K x bits per weight, all coefficients >= 0."""

    overhead_s: float
    compute_s_per_expert: float
    bandwidth_s_per_expert_bit: float
    relative_residual: float = Field(description="root mean square over the mean time per token")
    n_points: int


def energy_shares(configuration_id: ConfigurationId, runs: Sequence[RunEvaluation]) -> EnergyShares | None:
    """Split the headline energy of a configuration's runs; None without idle windows."""
    rows = [
        (run.net_joules_per_token, run.epi.joules_per_token, run.headline.duration_seconds / run.total_tokens)
        for run in runs
        if run.headline is not None and run.total_tokens
    ]
    known = [(net, gross, seconds) for net, gross, seconds in rows if net is not None and gross is not None]
    if not known:
        return None
    dynamic = median(net for net, _, _ in known)
    static = median(gross - net for net, gross, _ in known)
    return EnergyShares(
        configuration_id=configuration_id,
        static_joules_per_token=static,
        dynamic_joules_per_token=dynamic,
        static_share=static / (static + dynamic) if static + dynamic else 0.0,
        seconds_per_token=median(seconds for _, _, seconds in known),
    )


def roofline(
    shares: Sequence[EnergyShares], configurations: Sequence[Configuration], model_k: int | None
) -> Roofline | None:
    """Fit time per token over K and quantisation by non-negative least squares.

    Only where the campaign varies them: at least two values of K, two of bits a weight, and more configurations than
    coefficients; None otherwise (pruning depth alone moves neither, since K experts stay active). Engine and nodes
    change time as well, so only configurations that share those of the first one count.
    """
    by_id = {item.id: item for item in configurations}
    rows = []
    place = {(item.engine, item.n_nodes, item.nodes) for item in configurations[:1]}
    for share in shares:
        item = by_id[share.configuration_id]
        if (item.engine, item.n_nodes, item.nodes) not in place:
            continue
        k, bits = item.experts_per_token or model_k, BITS_PER_WEIGHT.get(item.quantization.upper())
        if k is not None and bits is not None:
            rows.append((float(k), bits, share.seconds_per_token))
    if len(rows) < 4 or len({k for k, _, _ in rows}) < 2 or len({bits for _, bits, _ in rows}) < 2:
        return None
    k, bits, seconds = np.array(rows).T
    design = np.stack([np.ones_like(k), k, k * bits], -1)
    scale = design.max(0)
    solution, residual = optimize.nnls(design / scale, seconds)
    overhead, compute, bandwidth = solution / scale
    return Roofline(
        overhead_s=float(overhead),
        compute_s_per_expert=float(compute),
        bandwidth_s_per_expert_bit=float(bandwidth),
        relative_residual=float(residual / np.sqrt(len(rows)) / seconds.mean()),
        n_points=len(rows),
    )
