"""From replies to the numbers of the paper's tables, and as a table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from tale.bleu import corpus_bleu
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

    Over open-ended questions there is no accuracy, nor what is derived from it: `bleu` is the mean of the sentences',
    from 0 to 1, and `corpus_bleu` that of all n-grams together.
    """

    method: str
    questions: int
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
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
    bleu: float | None = None
    bleu_low: float | None = None
    bleu_high: float | None = None
    bleu_difference: float | None = None
    bleu_difference_low: float | None = None
    bleu_difference_high: float | None = None
    corpus_bleu: float | None = None

    @property
    def score(self) -> tuple[Any, Any, Any]:
        """Accuracy, or BLEU where there is none, with the ends of its interval."""
        if self.bleu is not None:
            return self.bleu, self.bleu_low, self.bleu_high
        return self.accuracy, self.accuracy_low, self.accuracy_high


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
    nothing = (None, None, None)
    scores = _bleu(replies)
    return Row(
        replies[0].method, len(replies), *(nothing if scores else _accuracy(replies)), *nothing,
        fmean(r.output_tokens for r in replies), fmean(r.estimator_tokens for r in replies), *nothing, None,
        truncated=fmean(r.finish == "length" for r in replies),
        in_format=fmean(r.via == "brackets" for r in replies),
        graded_by_fallback=fmean(r.via == "fallback" for r in replies),
        asked_without_budget=sum(r.fallback is not None for r in replies),
        expense=fmean(_expense(r, prices) for r in replies) if _priced(prices) else None,
        **(_bounds("bleu", paired_difference(scores, [0.0] * len(scores))) if scores else {}),
        corpus_bleu=corpus_bleu([r.value for r in replies], [str(r.reference) for r in replies]) if scores else None,
    )  # fmt: skip


def _accuracy(replies: list[Reply]) -> tuple[float, float, float]:
    right = sum(r.correct is True for r in replies)
    return right / len(replies), *wilson(right, len(replies))


def _bleu(replies: list[Reply]) -> list[float]:
    """Each reply's, or none where replies are right or wrong."""
    return [r.bleu for r in replies if r.bleu is not None]


def _compared(row: Row, ours: list[Reply], theirs: list[Reply], prices: PriceConfig, margin: float) -> Row:
    """The row with its differences to the reference, `theirs`."""
    tokens = paired_difference([r.output_tokens for r in ours], [r.output_tokens for r in theirs])
    differences = _bounds("tokens_difference", tokens)
    if scores := _bleu(ours):
        differences |= _bounds("bleu_difference", paired_difference(scores, _bleu(theirs)))
    else:
        differences |= _accuracy_compared(ours, theirs, margin)
    if _priced(prices):
        costs = [[_expense(r, prices) for r in side] for side in (ours, theirs)]
        differences |= _bounds("expense_difference", paired_difference(*costs))
    return replace(
        row,
        **differences,
        tokens_ratio=row.output_tokens / fmean(r.output_tokens for r in theirs),
    )


def _accuracy_compared(ours: list[Reply], theirs: list[Reply], margin: float) -> dict[str, Any]:
    paired = Paired.of([r.correct is True for r in ours], [r.correct is True for r in theirs])
    return {
        **_bounds("accuracy_difference", (paired.difference, *paired.interval())),
        "mcnemar_p": paired.mcnemar(),
        "margin": margin,
        "within_margin": paired.not_worse(margin),
        "questions_needed": paired.questions_needed(margin),
    }


def _bounds(name: str, values: tuple[float, float, float]) -> dict[str, Any]:
    return {f"{name}{end}": value for end, value in zip(("", "_low", "_high"), values, strict=True)}


def _priced(prices: PriceConfig) -> bool:
    return bool(prices.input or prices.output)


def _expense(reply: Reply, prices: PriceConfig) -> float:
    """10⁻⁵ dollars for one sample; prices are dollars a million tokens."""
    prompt_tokens = reply.prompt_tokens + reply.estimator_prompt_tokens
    return dollars(prices, prompt_tokens, reply.output_tokens) * 1e5


def print_table(rows: Sequence[Row], title: str) -> None:
    """The table on the terminal."""
    scored = rows[0].bleu is not None
    within = next((f"within {100 * row.margin:g} points" for row in rows if row.margin), "within the margin")
    headings = ["method", "BLEU [95 %]", "corpus BLEU", "Δ to vanilla"] if scored else [
        "method", "accuracy % [95 %]", "Δ to vanilla", "McNemar p", within]  # fmt: skip
    headings += ["output tokens", "of which estimator", "× vanilla", "cut off %", "[[ ]] %",
                 "whole reply %" if scored else "last-number %", "no budget"]  # fmt: skip
    priced = any(row.expense is not None for row in rows)
    show(
        title, headings + ["expense 10⁻⁵ $"] * priced, [_cells(row) + [shown(row.expense, 2)] * priced for row in rows]
    )


def _cells(r: Row) -> list[str]:
    return [
        r.method,
        *(_accuracy_cells(r) if r.bleu is None else _bleu_cells(r)),
        shown(r.output_tokens),
        shown(r.estimator_tokens),
        shown(r.tokens_ratio, 2),
        shown(r.truncated, factor=100),
        shown(r.in_format, factor=100),
        shown(r.graded_by_fallback, factor=100),
        str(r.asked_without_budget),
    ]


def _accuracy_cells(r: Row) -> list[str]:
    change = (r.accuracy_difference, r.accuracy_difference_low, r.accuracy_difference_high)
    return [
        interval(*r.score, factor=100),
        "" if None in change else interval(*change, factor=100, sign="+"),
        "<0.001" if r.mcnemar_p is not None and r.mcnemar_p < 0.001 else shown(r.mcnemar_p, 3),
        r.within_margin or "",
    ]


def _bleu_cells(r: Row) -> list[str]:
    change = (r.bleu_difference, r.bleu_difference_low, r.bleu_difference_high)
    return [
        interval(*r.score, digits=3),
        shown(r.corpus_bleu, 3),
        "" if None in change else interval(*change, digits=3, sign="+"),
    ]
