"""Anytime indices: how early a strategy's accuracy comes, from its runs at each budget or from the answers of one run.

Q(b) is the accuracy with at most b output tokens a question, over budgets b₁ < … < b_T; where nothing was answered by
b tokens, the question counts as wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy
from numpy.typing import NDArray

from tale.evaluation.budgets import strategy_of
from tale.evaluation.replies import Reply, count_seeds
from tale.evaluation.seeds import mean_over_seeds
from tale.evaluation.summary import scores_of
from tale.output.formats import percent, whole, written
from tale.output.tables import Column, Table, columns_of, table_of
from tale.solvers.base import Method
from tale.solvers.strategy import Strategy
from tale.statistics import bootstrap_rows

Shares = NDArray[numpy.float64]
CAPTION = (
    "Anytime indices over the budgets; in brackets 95 % bootstrap intervals over questions. The area's running maximum "
    "of noisy accuracies is biased upwards, most with few questions"
)


@dataclass(frozen=True)
class AnytimeRow:
    """A strategy's indices over `budgets` token budgets, from the first to the last; None where not defined.

    `source` is where Q(b) is from: a run at each budget, or the answers over tokens of the run at the largest. `gain`
    is the mean gain as a share in 100 tokens, and `area` the index of arXiv:2601.11038.
    """

    strategy: Annotated[str, Column("strategy")]
    source: Annotated[str, Column("accuracy at b tokens is that of")]
    budgets: Annotated[int, Column("budgets", whole)]
    first: Annotated[int, Column("from b =", whole)]
    last: Annotated[int, Column("to b =", whole)]
    best: Annotated[float, Column("best accuracy, %", percent)]
    gain: Annotated[float | None, Column("mean gain in 100 tokens, points", written("+,.2f", 100))]
    gain_low: float | None
    gain_high: float | None
    area: Annotated[float | None, Column("area, share of the best (arXiv:2601.11038), %", percent)]
    area_low: float | None
    area_high: float | None


def gain_index(quality: Shares, budgets: Sequence[int]) -> Shares:
    """The mean gain, 1/T Σ ΔQ(b_t)/Δb_t, a share per token; `quality` is […, T], and Q(0) = 0 (ours)."""
    steps = numpy.diff(quality, axis=-1, prepend=0.0) / numpy.diff(budgets, prepend=0)
    return steps.mean(axis=-1)


def area_index(quality: Shares, budgets: Sequence[int]) -> Shares:
    """arXiv:2601.11038's index, Σ ½(Q*_t + Q*_{t+1})(b_{t+1} − b_t) / ((b_T − b₁)·Q_max); `quality` is […, T].

    Q*_t is the best quality up to b_t and Q_max the best of all, so that it says how early the best comes, and not how
    good it is. NaN where nothing is right, or with one budget.
    """
    best = numpy.maximum.accumulate(quality, axis=-1)
    with numpy.errstate(invalid="ignore"):
        return numpy.trapezoid(best, budgets, axis=-1) / ((budgets[-1] - budgets[0]) * best[..., -1])


def quality_at(replies: Sequence[Reply], tokens: Sequence[int]) -> Shares:
    """Each question's share of seeds whose answer by so many output tokens is right: [questions, tokens]."""
    right = [[_right_by(reply, limit) for reply in replies] for limit in tokens]
    return numpy.array([mean_over_seeds(of, count_seeds(replies)) for of in right]).T


def anytime_indices(methods: Sequence[Method], replies: Mapping[str, list[Reply]]) -> list[AnytimeRow]:
    """Two rows for each strategy with several token budgets; none for open-ended questions, which have no accuracy."""
    rows: list[AnytimeRow] = []
    for strategy, runs in runs_by_strategy(methods).items():
        budgets = sorted(runs)
        longest = replies[runs[budgets[-1]]]
        if len(budgets) < 2 or longest[0].metric != "accuracy":
            continue
        each = numpy.array([scores_of(replies[runs[budget]]) for budget in budgets]).T
        rows.append(_row(strategy, "a run at each budget b", each, budgets))
        source = f"the answer at b tokens, run at B = {budgets[-1]}"
        rows.append(_row(strategy, source, quality_at(longest, budgets), budgets))
    return rows


def runs_by_strategy(methods: Sequence[Method]) -> dict[str, dict[int, str]]:
    """By strategy and token budget B, the method's name."""
    runs: dict[str, dict[int, str]] = {}
    for method in methods:
        if isinstance(method, Strategy) and method.total_budget:
            runs.setdefault(strategy_of(method), {})[method.total_budget] = method.name
    return runs


def anytime_table(rows: Sequence[AnytimeRow], name: str = "anytime") -> Table:
    """The table of rows."""
    return table_of(name, CAPTION, columns_of(AnytimeRow), rows)


def _row(strategy: str, source: str, shares: Shares, budgets: list[int]) -> AnytimeRow:
    gain = bootstrap_rows(shares, lambda quality: 100 * gain_index(quality, budgets))
    area = bootstrap_rows(shares, lambda quality: area_index(quality, budgets))
    best = float(shares.mean(axis=0).max())
    return AnytimeRow(strategy, source, len(budgets), budgets[0], budgets[-1], best, *gain, *area)


def _right_by(reply: Reply, tokens: int) -> bool:
    answers = [answer for answer in reply.answers or () if answer.tokens <= tokens]
    return bool(answers and answers[-1].correct)
