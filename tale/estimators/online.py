"""Adapting estimates to use: a quantile of used / asked tokens over the last answers, for each range of budgets."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy

WINDOW = 256  # answers of each range; ours, as is what follows
FIRST = 32  # answers before a range's factor counts
SMALLEST, LARGEST = 0.25, 4.0  # factors
RANGES = 24  # powers of two


@dataclass
class UsageQuantile:
    """Factors on estimates, by powers of two of the estimate; `ratios[k]` are those of estimates from 2^k on.

    A range with fewer than `FIRST` answers has the factor 1. Factors are within `SMALLEST` and `LARGEST`, and a range
    keeps its last `WINDOW` answers, so that neither one client nor a long time changes it beyond bounds.
    """

    quantile: float
    ratios: list[list[float]] = field(default_factory=lambda: [[] for _ in range(RANGES)])

    def __post_init__(self) -> None:
        if len(self.ratios) != RANGES or any(len(ratios) > WINDOW for ratios in self.ratios):
            raise ValueError(f"its ratios are not {RANGES} lists of at most {WINDOW}")

    def factor(self, estimate: int) -> float:
        """The quantile of used / estimated for estimates of this range."""
        ratios = self._range(estimate)
        return 1.0 if len(ratios) < FIRST else _bounded(float(numpy.quantile(ratios, self.quantile)))

    def note(self, estimate: int, used: int) -> None:
        """Observe the tokens that an answer used, whose estimate was this one before the factor."""
        ratios = self._range(estimate)
        ratios.append(_bounded(used / estimate))
        del ratios[:-WINDOW]

    def _range(self, estimate: int) -> list[float]:
        return self.ratios[min(estimate.bit_length(), RANGES) - 1]


def _bounded(ratio: float) -> float:
    return min(max(ratio, SMALLEST), LARGEST)
