"""The way of a halving search: budget and cost by iteration (Fig 2), vanilla against searched tokens (Fig 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from tale.data.records import Record
from tale.errors import known
from tale.statistics import paired_difference


@dataclass(frozen=True)
class Iteration:
    """One budget that was asked of one question; iteration 0 is the vanilla answer, whose budget is its own length."""

    records: str
    question: str
    iteration: int
    budget: float
    used: float
    feasible: bool


@dataclass(frozen=True)
class Saving:
    """Mean tokens of vanilla CoT and of the answer under β*, over questions with a target: both are right (Fig 3)."""

    records: str
    questions: int
    vanilla: float
    searched: float
    difference: float
    difference_low: float
    difference_high: float


def iterations(label: str, record: Record) -> list[Iteration]:
    """The search of one question; of several samples the one that the search went by."""
    start = record.vanilla.best.tokens
    return [Iteration(label, record.question.id, 0, start, start, True)] + [
        Iteration(label, record.question.id, i, known(a.budget), a.best.tokens, a.feasible)
        for i, a in enumerate(record.attempts, 1)
    ]


def saving(label: str, records: Sequence[Record]) -> Saving | None:
    """Fig 3's two columns, or None where no question has a target."""
    pairs = [(r.target.tokens, r.vanilla.best.tokens) for r in records if r.target]
    if not pairs:
        return None
    searched, vanilla = zip(*pairs, strict=True)
    return Saving(label, len(pairs), fmean(vanilla), fmean(searched), *paired_difference(searched, vanilla))
