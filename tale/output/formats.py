"""Number formats of tables: with a minus sign, and commas between thousands."""

from __future__ import annotations

import math
from collections.abc import Callable

Format = Callable[[float], str]


def written(spec: str, factor: float = 1) -> Format:
    """The format of `factor` times a number, by a format specification."""
    return lambda value: f"{factor * value:{spec}}".replace("-", "−")


percent = written(",.1f", 100)  # 57.0, of a share
points = written("+,.1f", 100)  # −1.4, of a difference of shares: percentage points
number = written(",.1f")  # 1,160.3
two_digits = written(",.2f")  # 0.13
three_digits = written(",.3f")  # 0.267
signed = written("+,.3f")  # −0.027
rounded = written(".4g")  # 0.03125
p_value = written(".2g")  # 0.031


def whole(value: float) -> str:
    """7,473; infinity is `never`."""
    return "never" if math.isinf(value) else f"{value:,.0f}"


def dollars(value: float) -> str:
    """$0.0123, $12.30."""
    return f"${value:,.4f}" if value < 1 else f"${value:,.2f}"


def duration(seconds: float) -> str:
    """35.2 s, 11 min 20 s, 5 h 54 min."""
    if seconds < 60:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def yes_or_no(value: bool) -> str:
    """A verdict in words."""
    return "yes" if value else "no"
