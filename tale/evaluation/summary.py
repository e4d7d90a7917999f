"""From replies to the numbers of the paper's tables, and as a table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from tale.config import PriceConfig
from tale.costs import dollars
from tale.evaluation.methods import Reply
from tale.statistics import Paired, Verdict, paired_difference, wilson
from tale.tables import interval, show, shown


@dataclass(frozen=True)
class Row:
    """One method over one set of questions. Shares and differences are fractions, tokens are means over *all* samples.

    `*_low`/`*_high` bound 95 % intervals; differences are to the reference method, paired by question, and None for
    the reference itself. `expense` is in 10⁻⁵ dollars a sample, as in the paper, None where no price is given.
    `mcnemar_p` is of the difference in accuracy; `within_margin` says whether that is less than `margin` to the worse
    (`tale.statistics`), and `questions_needed` how many questions would be enough to show it.
    """

    method: str
    questions: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    accuracy_difference: float | None
    accuracy_difference_low: float | None
    accuracy_difference_high: float | None
    output_tokens: float
    estimator_tokens: float
    tokens_difference: float | None
    tokens_difference_low: float | None
    tokens_difference_high: float | None
    tokens_ratio: float | None
    truncated: float
    in_format: float
    graded_by_fallback: float
    asked_without_budget: int
    expense: float | None
    expense_difference: float | None = None
    expense_difference_low: float | None = None
    expense_difference_high: float | None = None
    mcnemar_p: float | None = None
    margin: float | None = None
    within_margin: Verdict | None = None
    questions_needed: int | None = None


def summarise(
    replies: dict[str, list[Reply]], reference: str | None, prices: PriceConfig, margin: float = 0.03
) -> list[Row]:
    """A row for each method; `replies[method]` are over the same questions in the same order, `margin` is a share."""
    rows = {method: _alone(of, prices) for method, of in replies.items()}
    if reference is None or reference not in replies:
        return list(rows.values())
    return [
        row if method == reference else _compared(row, replies[method], replies[reference], prices, margin)
        for method, row in rows.items()
    ]


def _alone(replies: list[Reply], prices: PriceConfig) -> Row:
    """The figures of a method by itself."""
    right = sum(r.correct for r in replies)
    low, high = wilson(right, len(replies))
    nothing = (None, None, None)
    return Row(
        replies[0].method, len(replies), right / len(replies), low, high, *nothing,
        fmean(r.output_tokens for r in replies), fmean(r.estimator_tokens for r in replies), *nothing, None,
        truncated=fmean(r.finish == "length" for r in replies),
        in_format=fmean(r.via == "brackets" for r in replies),
        graded_by_fallback=fmean(r.via == "fallback" for r in replies),
        asked_without_budget=sum(r.fallback is not None for r in replies),
        expense=fmean(_expense(r, prices) for r in replies) if _priced(prices) else None,
    )  # fmt: skip


def _compared(row: Row, ours: list[Reply], theirs: list[Reply], prices: PriceConfig, margin: float) -> Row:
    """The row with its differences to the reference, `theirs`."""
    paired = Paired.of([r.correct for r in ours], [r.correct for r in theirs])
    accuracy = (paired.difference, *paired.interval())
    tokens = paired_difference([r.output_tokens for r in ours], [r.output_tokens for r in theirs])
    differences = _bounds("accuracy", accuracy) | _bounds("tokens", tokens)
    if _priced(prices):
        costs = [[_expense(r, prices) for r in side] for side in (ours, theirs)]
        differences |= _bounds("expense", paired_difference(*costs))
    return replace(
        row,
        **differences,
        tokens_ratio=row.output_tokens / fmean(r.output_tokens for r in theirs),
        mcnemar_p=paired.mcnemar(),
        margin=margin,
        within_margin=paired.not_worse(margin),
        questions_needed=paired.questions_needed(margin),
    )


def _bounds(name: str, difference: tuple[float, float, float]) -> dict[str, float]:
    return {f"{name}_difference{end}": value for end, value in zip(("", "_low", "_high"), difference, strict=True)}


def _priced(prices: PriceConfig) -> bool:
    return bool(prices.input or prices.output)


def _expense(reply: Reply, prices: PriceConfig) -> float:
    """10⁻⁵ dollars for one sample; prices are dollars a million tokens."""
    prompt_tokens = reply.prompt_tokens + reply.estimator_prompt_tokens
    return dollars(prices, prompt_tokens, reply.output_tokens) * 1e5


def print_table(rows: Sequence[Row], title: str) -> None:
    """The table on the terminal."""
    within = next((f"within {100 * row.margin:g} points" for row in rows if row.margin), "within the margin")
    headings = ["method", "accuracy % [95 %]", "Δ to vanilla", "McNemar p", within, "output tokens",
                "of which estimator", "× vanilla", "cut off %", "[[ ]] %", "last-number %", "no budget"]  # fmt: skip
    priced = any(row.expense is not None for row in rows)
    show(
        title, headings + ["expense 10⁻⁵ $"] * priced, [_cells(row) + [shown(row.expense, 2)] * priced for row in rows]
    )


def _cells(r: Row) -> list[str]:
    return [
        r.method,
        interval(r.accuracy, r.accuracy_low, r.accuracy_high, factor=100),
        _difference(r),
        "<0.001" if r.mcnemar_p is not None and r.mcnemar_p < 0.001 else shown(r.mcnemar_p, 3),
        r.within_margin or "",
        shown(r.output_tokens),
        shown(r.estimator_tokens),
        shown(r.tokens_ratio, 2),
        shown(r.truncated, factor=100),
        shown(r.in_format, factor=100),
        shown(r.graded_by_fallback, factor=100),
        str(r.asked_without_budget),
    ]


def _difference(r: Row) -> str:
    if r.accuracy_difference is None or r.accuracy_difference_low is None or r.accuracy_difference_high is None:
        return ""
    ends = (r.accuracy_difference_low, r.accuracy_difference_high)
    return interval(r.accuracy_difference, *ends, factor=100, sign="+")
