"""The saving against the control group while the proxy runs: two running means and the interval of their ratio.

`tale.statistics`, which the report uses, imports scipy: half as much memory again as the proxy needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

Z = NormalDist().inv_cdf(0.975)  # of a two-sided 95 % interval


@dataclass
class Moments:
    """A running mean and variance (Welford's), of which no values are kept."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared differences to the mean

    def add(self, value: float) -> None:
        """Take another value."""
        self.count += 1
        before = value - self.mean
        self.mean += before / self.count
        self.squares += before * (value - self.mean)

    @property
    def relative_error(self) -> float:
        """The standard error of the mean, as a share of the mean; infinite with fewer than 2 values or a mean of 0."""
        if self.count < 2 or self.mean <= 0:
            return math.inf
        return math.sqrt(self.squares / (self.count - 1) / self.count) / self.mean


def relative_saving(ours: Moments, theirs: Moments) -> tuple[float | None, float | None, float | None]:
    """1 − mean of ours / mean of theirs, of two independent groups, with a 95 % interval by the delta method.

    The interval is that of the logarithm of the ratio; Nones with fewer than 2 values in a group.
    """
    error = math.hypot(ours.relative_error, theirs.relative_error)
    if math.isinf(error):
        return None, None, None
    ratio, factor = ours.mean / theirs.mean, math.exp(Z * error)
    return 1 - ratio, 1 - ratio * factor, 1 - ratio / factor
