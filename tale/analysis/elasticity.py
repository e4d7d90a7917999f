"""Accuracy and tokens by budget, over all questions of a grid search (Table 8), and a summary of the model.

Only questions whose vanilla answer is right are counted, so vanilla's accuracy is 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Annotated, Any

from tale.analysis.curve import elastic, elasticity_point, ideal_range, monotone, points, smallest_right
from tale.data.records import Attempt, Record
from tale.errors import UserError
from tale.output.formats import number, percent, rounded, two_digits, whole, yes_or_no
from tale.output.tables import Column, Table, columns_of, table_of
from tale.search.strategies import fraction_budget
from tale.statistics import bootstrap_mean, wilson

PAPERS = "the paper's"  # shown for a search without a budget_line


@dataclass(frozen=True)
class BudgetLevel:
    """One budget, as a share of each question's vanilla tokens (None: vanilla CoT itself), over all searched questions.

    `asked` and `used` are mean tokens, `used_share` is the ratio of `used` to vanilla's tokens; `adherence` is the
    median of used / asked and `within` the share of answers no longer than asked. Accuracy is by the search's
    acceptance. Intervals are 95 %.
    """

    records: Annotated[str, Column("search")]
    share: Annotated[float | None, Column("budget, × vanilla tokens", rounded, empty="vanilla CoT")]
    questions: Annotated[int, Column("questions", whole)]
    asked: Annotated[float | None, Column("tokens asked for", number)]
    used: Annotated[float, Column("tokens used", number)]
    used_low: float
    used_high: float
    used_share: Annotated[float, Column("× vanilla", two_digits)]
    accuracy: Annotated[float, Column("right, %", percent)]
    accuracy_low: float
    accuracy_high: float
    adherence: Annotated[float | None, Column("used / asked, median", two_digits)]
    within: Annotated[float | None, Column("within the budget, %", percent)]
    cut_off: Annotated[float, Column("cut off, %", percent)]


@dataclass(frozen=True)
class QuestionSummary:
    """A searched question: β*, elasticity point and ideal range in tokens; None if no budget was right."""

    records: str
    question: str
    vanilla_tokens: float
    star: int | None
    elasticity_point: int | None
    elastic: bool | None
    ideal_low: int | None
    ideal_high: int | None
    monotone: bool | None
    threshold: bool | None


@dataclass(frozen=True)
class ModelSummary:
    """The summary of a grid search's model, one row of a table.

    `elasticity_point` is the tested share of the vanilla tokens under which answers are shortest on average (of equals,
    the largest), `elastic` whether a smaller one made them longer again. Shares of questions are of those with a β*:
    `elastic_share` that of elastic ones, `monotone_share` as in Table 2, `threshold_share` of those that are monotone
    from their smallest right budget up, which need not be β*. `budget_line` is how the search asked for budgets.
    """

    records: Annotated[str, Column("search")]
    questions: Annotated[int, Column("questions", whole)]
    searched: Annotated[int, Column("searched", whole)]
    with_star: Annotated[int, Column("questions with β*", whole)]
    elasticity_point: Annotated[float, Column("elasticity point, × vanilla", rounded)]
    elastic: Annotated[bool, Column("longer again below", yes_or_no)]
    median_elasticity_point: Annotated[float | None, Column("a question's point, tokens, median", number)]
    elastic_share: Annotated[float | None, Column("elastic questions, %", percent)]
    monotone_share: Annotated[float | None, Column("monotone around β*, %", percent, ends="monotone")]
    monotone_low: float | None
    monotone_high: float | None
    threshold_share: Annotated[float | None, Column("from some budget up, %", percent)]
    budget_line: Annotated[str, Column("budget asked for by")] = PAPERS


BY_BUDGET = columns_of(BudgetLevel, "share", "questions", "accuracy", "used", "used_share")
ADHERENCE = columns_of(BudgetLevel, "share", "asked", "adherence", "within", "cut_off")
MONOTONE = columns_of(ModelSummary, "records", "with_star", "monotone_share", "threshold_share")
ELASTIC = columns_of(
    ModelSummary, "records", "budget_line", "questions", "searched", "elasticity_point", "elastic",
    "median_elasticity_point", "elastic_share",
)  # fmt: skip


def curve_tables(slug: str, curve: Sequence[Mapping[str, Any]], beside: Mapping[str, Column]) -> list[Table]:
    """Tables of one search's steps, given by field: its curve, with other columns beside, and how budgets were kept."""
    label, asked = curve[0]["records"], [step for step in curve if step["share"] is not None]
    caption = f"{label}: tokens and accuracy by budget (Table 8), of the questions that vanilla CoT answers right"
    return [
        table_of(f"elasticity-{slug}", caption, {**BY_BUDGET, **beside}, curve),
        table_of(f"adherence-{slug}", f"{label}: adherence to the budget", ADHERENCE, asked),
    ]


def model_tables(slug: str, models: Sequence[ModelSummary], *beside: Mapping[str, Any]) -> list[Table]:
    """Tables of searches' models: monotonicity, with other figures beside, and elasticity."""
    return [
        table_of(f"analysis-monotone-{slug}", "Monotonicity (Table 2)", MONOTONE, [*models, *beside]),
        table_of(f"analysis-elastic-{slug}", "Token elasticity (§3)", ELASTIC, models),
    ]


def vanilla_correct(records: Sequence[Record]) -> list[Record]:
    """The searched questions that vanilla CoT answers right."""
    return [record for record in records if record.attempts and not record.vanilla_wrong]


def budget_levels(label: str, records: Sequence[Record], shares: Sequence[float]) -> list[BudgetLevel]:
    """The curve, by rising share, with vanilla CoT last. A budget that several shares round to counts for each.

    Raises:
        UserError: a budget of these shares was not searched.
    """
    base = [_used(record.vanilla) for record in records]
    rows = []
    for share in sorted(set(shares)):
        budgets = [fraction_budget(share, record.vanilla) for record in records]
        attempts = [_attempt(record, budget) for record, budget in zip(records, budgets, strict=True)]
        rows.append(_step(label, share, attempts, base))
    return [*rows, _step(label, None, [record.vanilla for record in records], base)]


def summarise_question(label: str, record: Record) -> QuestionSummary:
    """The figures of one searched question."""
    curve = points(record)
    at, ideal, least, star = elasticity_point(curve), ideal_range(curve), smallest_right(curve), record.budget
    return QuestionSummary(
        label,
        record.question.id,
        _used(record.vanilla),
        star,
        at.budget if at else None,
        elastic(curve, at) if at else None,
        ideal.low if ideal else None,
        ideal.high if ideal else None,
        monotone(curve, star) if star else None,
        monotone(curve, least) if least else None,
    )


def summarise_model(
    label: str, line: str | None, questions: int, curve: Sequence[BudgetLevel], each: Sequence[QuestionSummary]
) -> ModelSummary:
    """The summary of a curve and of its questions, of `questions` that were there with those that were not searched."""
    asked = [(step.share, step.used) for step in curve if step.share is not None]
    point, used = min(asked, key=lambda step: (step[1], -step[0]))
    found = [one for one in each if one.star is not None]
    points_of = [one.elasticity_point for one in found if one.elasticity_point is not None]
    same = sum(bool(one.monotone) for one in found)
    low, high = wilson(same, len(found)) if found else (None, None)
    return ModelSummary(
        label,
        questions,
        len(each),
        len(found),
        point,
        any(tokens > used for share, tokens in asked if share < point),
        median(points_of) if found else None,
        fmean(bool(one.elastic) for one in found) if found else None,
        same / len(found) if found else None,
        low,
        high,
        fmean(bool(one.threshold) for one in found) if found else None,
        line or PAPERS,
    )


def _step(label: str, share: float | None, attempts: Sequence[Attempt], base: Sequence[float]) -> BudgetLevel:
    used = [_used(attempt) for attempt in attempts]
    right = sum(attempt.feasible for attempt in attempts) if share is not None else len(attempts)
    answers = [(answer, attempt.budget) for attempt in attempts for answer in attempt.answers]
    ratios = [answer.tokens / budget for answer, budget in answers if budget]
    mean, low, high = bootstrap_mean(used)
    return BudgetLevel(
        label,
        share,
        len(attempts),
        fmean(attempt.budget for attempt in attempts if attempt.budget) if ratios else None,
        mean,
        low,
        high,
        mean / fmean(base),
        right / len(attempts),
        *wilson(right, len(attempts)),
        median(ratios) if ratios else None,
        fmean(ratio <= 1 for ratio in ratios) if ratios else None,
        fmean(answer.finish == "length" for answer, _ in answers),
    )


def _used(attempt: Attempt) -> float:
    return fmean(answer.tokens for answer in attempt.answers)


def _attempt(record: Record, budget: int) -> Attempt:
    for attempt in record.attempts:
        if attempt.budget == budget:
            return attempt
    raise UserError(f"records: {record.question.id} was not asked under {budget} tokens, as the search's recipe says")
