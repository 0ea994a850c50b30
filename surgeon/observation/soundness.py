"""Statistics that cannot be: NaN, infinite or negative sums make a ranking that looks like any other.

Looked at where a file is read and where one is written, so that every ranking, search and matrix is covered; domain,
layer and expert are named.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.kernel.errors import DataError

Array = npt.NDArray[Any]
_HINT = "observe again; if it is so again, the model has weights that are no numbers"


def check_sums(domains: Mapping[str, Mapping[str, Array]], n_tokens: Mapping[str, int], where: str) -> None:
    """Refuse sums that no observation gives.

    Raises:
        DataError: a value is NaN, infinite or negative, or the tokens of a domain are not counted.
    """
    if set(domains) != set(n_tokens) or any(count < 1 for count in n_tokens.values()):
        raise DataError("the domains and their numbers of tokens do not belong together", where=where)
    for domain, sums in domains.items():
        for name, values in sums.items():
            if values.dtype.kind not in "iuf":
                raise DataError(f"{name} of {domain!r} holds no numbers", where=where)
            sound = np.isfinite(values) & (values >= 0)
            if not sound.all():
                layer, *rest = (int(place) for place in np.argwhere(~sound)[0])
                part = "bin" if name == "ratio_histogram" else "expert"
                at = f"layer {layer}, {part} {rest[0]}" if rest else f"layer {layer}"
                value = values[(layer, *rest)]
                raise DataError(f"{name} of {domain!r} is {value:g} in {at}", where=where, hint=_HINT)


def check_reservoir(reservoir: Mapping[str, Array], n_layers: int, where: str) -> None:
    """Refuse a sample of block inputs that is none.

    Raises:
        DataError: shapes that do not fit one another, or a value that is NaN or infinite, with its layer.
    """
    if not reservoir:
        return
    inputs, priority = reservoir.get("inputs"), reservoir.get("priority")
    if (
        inputs is None or priority is None or len(reservoir) != 2 or inputs.ndim != 3 or inputs.dtype != np.float32
        or priority.dtype != np.uint64 or inputs.shape[:2] != (n_layers, priority.size) or priority.ndim != 1
    ):  # fmt: skip
        raise DataError("the sample of block inputs is damaged", where=where)
    for layer, values in enumerate(inputs):
        if not np.isfinite(values).all():
            raise DataError(f"a block input of layer {layer} is NaN or infinite", where=where, hint=_HINT)
