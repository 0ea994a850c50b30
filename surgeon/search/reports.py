"""What a search says about its result; light, since every process that starts tasks imports it."""

from shared.kernel.records import Record


class NaeeReport(Record):
    """Losses by layer, and whether every subset was tried."""

    losses: tuple[float, ...]
    exhaustive: bool


class EepReport(Record):
    """Accuracy on the questions the search used, and on those it never saw."""

    train: float
    validation: float
    validation_base: float
    """Of what the result is compared with: the whole model, or for the merge phase the plan it began with."""
    evaluated: int
