"""Numbers that people and programs give: ranges that many fields have, and decimals that a file holds as text.

Decimals are plain ASCII decimals, and nothing else that Python would take for one.

Python's `float` also reads `1_000`, digits of other scripts, blanks around, `nan` and `inf`, and turns 1e999 into
infinity; no meter and no other program writes such a number, so it is damage or malice.
"""

import re
from typing import Annotated, Final

from pydantic import Field

Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""Of anything that draws lots."""
Weight = Annotated[float, Field(ge=0, le=1e6)]
"""Of one among several."""

_DECIMAL: Final = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_SHOWN: Final = 30


def decimal(text: str, largest: float) -> float:
    """Return the number that `text` is.

    Raises:
        ValueError: it is no plain decimal number, or its magnitude is above `largest`; the text says which.
    """
    if _DECIMAL.fullmatch(text) is None:
        raise ValueError(f"{text[:_SHOWN]!r} is not a number")
    value = float(text)
    if not abs(value) <= largest:
        raise ValueError(f"{text[:_SHOWN]} is beyond {largest:g}")
    return value
