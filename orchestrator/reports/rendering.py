"""How numbers are put into sentences: the same everywhere."""

from math import expm1


def signed_percent(log_ratio: float, digits: int = 1) -> str:
    """Return a small difference of logarithms (or of shares) as a signed percentage."""
    return f"{100 * log_ratio:+.{digits}f} %"


def change(ratio: float, digits: int = 1) -> str:
    """Return a ratio as a change: 0.95 is `-5.0 %`."""
    return f"{100 * (ratio - 1):+.{digits}f} %"


def change_of_log(log_ratio: float, digits: int = 1) -> str:
    """Return ln(ratio) as a change."""
    return f"{100 * expm1(log_ratio):+.{digits}f} %"


def number(value: float | None, digits: int = 4) -> str:
    """Return a number with significant digits, a dash for an unknown one."""
    return "-" if value is None else f"{value:.{digits}g}"
