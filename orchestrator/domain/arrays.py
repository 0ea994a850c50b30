"""What all array mathematics here shares: the array types, and how much a median scatters more than a mean."""

from math import pi

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Var(median)/Var(mean) of n normal values, by integrating their order statistics (a test checks it by simulation).
_MEDIAN_FACTOR = (1.0, 1.0, 1.3460, 1.1928, 1.4342, 1.2885, 1.4731, 1.3455, 1.4949, 1.3834, 1.5088, 1.4104)


def median_factor(n: int) -> float:
    """Return Var(median)/Var(mean) of n normal values; pi/2 for many."""
    return _MEDIAN_FACTOR[n - 1] if 0 < n <= len(_MEDIAN_FACTOR) else pi / 2
