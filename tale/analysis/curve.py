"""One question's answers under a grid of budgets: elasticity point, ideal range, monotonicity (§4, A.1, A.2).

Whether a point is right is decided by the search's acceptance; its tokens are the mean over its samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from tale.data.records import Record
from tale.errors import not_none


@dataclass(frozen=True)
class Point:
    """A budget, the tokens used under it, and whether the question was answered right."""

    budget: int
    tokens: float
    right: bool


@dataclass(frozen=True)
class Range:
    """A closed range of budgets."""

    low: int
    high: int

    def distance(self, budget: float) -> float:
        """Tokens from a budget to the nearest one of the range; 0 inside (A.2)."""
        return max(self.low - budget, budget - self.high, 0)


def points(record: Record) -> list[Point]:
    """The attempts of a grid search, by rising budget."""
    found = (
        Point(not_none(a.budget), fmean(answer.tokens for answer in a.answers), a.feasible) for a in record.attempts
    )
    return sorted(found, key=lambda point: point.budget)


def ideal_range(curve: Sequence[Point]) -> Range | None:
    """W*: the window of k = max(1, round(N / 3)) neighbours of the N right budgets that uses the fewest tokens (A.1).

    Ours, as the paper does not say: the rounding, and that W* is the closed range from the window's smallest budget to
    its largest. Of windows with equal tokens, the one with the smaller budgets. None if no budget was right.
    """
    right = [point for point in curve if point.right]
    if not right:
        return None
    k = max(1, round(len(right) / 3))
    windows = [right[i : i + k] for i in range(len(right) - k + 1)]
    best = min(windows, key=lambda window: sum(point.tokens for point in window))
    return Range(best[0].budget, best[-1].budget)


def elasticity_point(curve: Sequence[Point]) -> Point | None:
    """The budget with the shortest right answer; a smaller budget saves nothing more.

    Ours: §3 names the phenomenon, not a formula. Of equals, the largest budget. None if no budget was right.
    """
    return min((point for point in curve if point.right), key=lambda p: (p.tokens, -p.budget), default=None)


def elastic(curve: Sequence[Point], at: Point) -> bool:
    """Whether a tested budget below `at` made the answer longer again, right or wrong: token elasticity (§3)."""
    return any(point.tokens > at.tokens for point in curve if point.budget < at.budget)


def monotone(curve: Sequence[Point], star: int) -> bool:
    """Whether all tested budgets from β* on are answered right, and all below wrong (§4, Table 2)."""
    return all(point.right == (point.budget >= star) for point in curve)


def smallest_right(curve: Sequence[Point]) -> int | None:
    """The smallest budget that was answered right, if any."""
    return min((point.budget for point in curve if point.right), default=None)
