"""How experts are chosen by a ranking, whoever asks for it: a job of the surgeon, a variant of a campaign."""

from typing import Annotated, Literal

from pydantic import Field

from shared.kernel.numbers import Seed, Weight
from shared.kernel.records import Record, is_empty
from shared.wire.names import Parameters


class PruningOptions(Record):
    """What both say alike; how many experts go, from which layers and in which layout, each says in its own words."""

    budget: Literal["uniform", "bisect"] = Field(
        default="uniform", description="bisect: the layers keep the same share of saliency, not the same number"
    )
    fewest: int = Field(default=1, ge=1, le=4096, description="bisect: the fewest experts a layer keeps")
    protect_super: bool = Field(default=False, description="never drop experts with outstanding outputs")
    # Left out where they are not used, so that what an earlier version asked for is the same.
    protect: dict[str, tuple[Annotated[int, Field(ge=0, le=4095)], ...]] = Field(
        default={}, exclude_if=is_empty, description='layer number (or "all") -> experts that are never dropped'
    )
    domain_weights: dict[str, Weight] | None = Field(default=None, description="blend of the statistics' domains")
    seed: Seed = Field(default=0, description="of methods that draw lots")
    parameters: Parameters = Field(default={}, exclude_if=is_empty, description="the method's own")
