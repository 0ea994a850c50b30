"""Weights that are no numbers: a checkpoint with NaN or infinity in it is damaged, and everything after it is wrong.

Checked wherever weights are read as numbers; the tensor and, where it has them, layer and expert are named.
"""

import math
from array import array
from typing import TYPE_CHECKING, Any

from shared.kernel.errors import DataError

if TYPE_CHECKING:
    import numpy.typing as npt

_BF16_EXPONENT = 0x7F80


def require_finite(values: "npt.NDArray[Any]", where: str) -> None:
    """Refuse weights that are no numbers; BF16 comes as uint16.

    Raises:
        DataError: at least one is NaN or infinite.
    """
    import numpy as np  # only where weights are read: a node that copies byte ranges needs none

    if values.dtype == np.uint16:
        wrong = int(((values & _BF16_EXPONENT) == _BF16_EXPONENT).sum())
    else:
        wrong = values.size - int(np.isfinite(values).sum())
    if wrong:
        raise DataError(
            f"{wrong} of {values.size} weights are NaN or infinite", where=where,
            hint="the checkpoint is damaged: get it again, and compare its hash",
        )  # fmt: skip


def first_not_finite(data: bytes) -> int | None:
    """Return the place of the first F32 value that is NaN or infinite, None without one; needs no numpy."""
    values = array("f", data)
    if math.isfinite(sum(values)):  # float64: finite F32 values cannot overflow it, one that is not finite stays so
        return None
    return next(place for place, value in enumerate(values) if not math.isfinite(value))
