"""The path of a halving search: budget and cost by iteration (Fig 2), vanilla against searched tokens (Fig 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated

from tale.data.records import Record
from tale.errors import not_none
from tale.output.formats import number, two_digits, whole
from tale.output.tables import Column, Table, columns_of, table_of
from tale.statistics import paired_difference


@dataclass(frozen=True)
class Iteration:
    """One budget of one question's search; iteration 0 is the vanilla answer, whose budget is its length."""

    records: str
    question: str
    iteration: int
    budget: float
    used: float
    feasible: bool


@dataclass(frozen=True)
class Saving:
    """Mean tokens of vanilla CoT and of the answer under β*, over questions with a target: both are right (Fig 3)."""

    records: Annotated[str, Column("search")]
    questions: Annotated[int, Column("questions", whole)]
    vanilla: Annotated[float, Column("vanilla CoT, tokens", number)]
    searched: Annotated[float, Column("under β*, tokens", number)]
    difference: Annotated[float, Column("difference", number)]
    difference_low: float
    difference_high: float


def savings_table(slug: str, savings: Sequence[Saving]) -> Table:
    """The table of searches' savings."""
    rows = [{**vars(row), "ratio": row.searched / row.vanilla} for row in savings]
    caption = "Mean tokens of vanilla CoT and under β*, of questions that both answer right (Fig 3)"
    columns = {**columns_of(Saving), "ratio": Column("× vanilla", two_digits)}
    return table_of(f"analysis-savings-{slug}", caption, columns, rows)


def iterations(label: str, record: Record) -> list[Iteration]:
    """The iterations of one question's search; of several samples the best."""
    start = record.vanilla.best.tokens
    return [Iteration(label, record.question.id, 0, start, start, True)] + [
        Iteration(label, record.question.id, i, not_none(a.budget), a.best.tokens, a.feasible)
        for i, a in enumerate(record.attempts, 1)
    ]


def saving(label: str, records: Sequence[Record]) -> Saving | None:
    """Fig 3's two columns; None if no question has a target."""
    pairs = [(r.target.tokens, r.vanilla.best.tokens) for r in records if r.target]
    if not pairs:
        return None
    searched, vanilla = zip(*pairs, strict=True)
    return Saving(label, len(pairs), fmean(vanilla), fmean(searched), *paired_difference(searched, vanilla))
