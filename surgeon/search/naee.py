"""NAEE as a search: layer by layer, the subset whose output differs least (`reconstruction`) on kept block inputs."""

from typing import ClassVar

from pydantic import Field

from shared.checkpoints.base import CheckpointInfo
from shared.kernel.errors import ConfigurationError
from shared.kernel.progress import Progress
from shared.wire.surgeon_catalogue import Need
from surgeon.search.base import Found, Search, SearchInputs, SearchSize
from surgeon.search.reconstruction import MAX_SUBSETS, ReconstructionLoss, n_subsets, search_layer

_MANY = 10_000


class Naee(Search):
    """Keep the subset of each layer that changes its output least."""

    name: ClassVar[str] = "naee"
    source: ClassVar[str] = "Lu et al., arXiv 2402.14800"
    needs: ClassVar[tuple[Need, ...]] = ("reservoir", "weights")

    max_subsets: int = Field(default=MAX_SUBSETS, ge=1, description="of a layer; above it greedy with swaps")

    def check(self, model: CheckpointInfo, depth: int | None) -> SearchSize:
        """Say how many subsets a layer has."""
        from surgeon.search.offline_experts import is_computed_here

        self.check_depth(model, depth)
        if not is_computed_here(model.architecture):
            raise ConfigurationError(
                f"NAEE computes experts outside of the engine, which is not possible for {model.architecture}: what is"
                " known is a softmax over SwiGLU experts", where=self.name, hint="use a ranking, or the search eep",
            )  # fmt: skip
        total = n_subsets(model.n_experts, model.n_experts - (depth or 0))
        is_whole = total <= self.max_subsets
        how = f"all {total} subsets a layer" if is_whole else f"greedy with swaps ({total} subsets are too many)"
        return SearchSize(f"NAEE over {model.n_layers} layers: {how}", is_long=is_whole and total > _MANY)

    def run(self, inputs: SearchInputs, on_progress: Progress) -> Found:
        """Search every layer."""
        from surgeon.search.offline_experts import LayerExperts

        observed = inputs.reservoir()
        seen = observed.provenance
        keep = seen.n_experts - inputs.drop
        is_whole = n_subsets(seen.n_experts, keep) <= self.max_subsets
        kept: list[tuple[int, ...]] = []
        losses: list[float] = []
        for layer in range(seen.n_layers):
            experts = LayerExperts.load(inputs.model, layer)
            block_inputs = observed.reservoir["inputs"][layer]
            loss = ReconstructionLoss(
                experts.probabilities(block_inputs), experts.outputs(block_inputs), seen.experts_per_token,
                normalises=experts.normalises,
            )  # fmt: skip

            def report(done: int, expected: int, layer: int = layer) -> None:
                on_progress((layer + done / expected) / seen.n_layers, f"layer {layer}")

            subset = search_layer(loss, keep, max_subsets=self.max_subsets, on_progress=report)
            kept.append(subset.kept)
            losses.append(subset.loss)
        plan = inputs.plan_keeping(
            kept, seen.n_experts, "naee" if is_whole else "naee_greedy_with_swaps",
            {"depth": inputs.drop, "tokens": len(observed.reservoir["priority"])},
        )  # fmt: skip
        return Found(plan, {"losses": losses, "exhaustive": is_whole})


SEARCH = Naee
