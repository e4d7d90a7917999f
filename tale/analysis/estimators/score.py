"""Scoring estimates against the ideal ranges and β* of questions that no estimator was trained on (A.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, Any

from tale.analysis.curve import Range, ideal_range, points
from tale.data.question import Question
from tale.data.records import Record
from tale.estimators.base import Estimate
from tale.output.formats import number, percent, whole
from tale.output.tables import Column, Table, columns_of, table_of
from tale.statistics import UNKNOWN, paired_difference, wilson


@dataclass(frozen=True)
class HeldOutQuestion:
    """A held-out question, its ideal range W* and its β*."""

    question: Question
    window: Range
    star: int


@dataclass(frozen=True)
class Score:
    """One estimator over all held-out questions. Budgets are ⌈α·β̂⌉. Intervals are 95 %.

    In-range accuracy is over all questions; one without an estimate is not in range, and left out of other figures.
    `distance_outside` is the paper's out-of-range distance, a mean over the budgets outside; `distance` is the mean
    over all, 0 inside, which can be compared between estimators: `distance_difference` is its difference to the
    constant's, paired by question, and `verdict` what that shows. `error` is the mean |β̂ − β*|, `covered` the share of
    questions with β* ≤ β̂. `tokens` and `prompt_tokens` are what the estimate of a question itself cost, on average.
    """

    estimator: Annotated[str, Column("estimator")]
    questions: int
    without_estimate: Annotated[int, Column("no estimate", whole)]
    in_range: Annotated[float, Column("in range, %", percent)]
    in_range_low: float
    in_range_high: float
    distance_outside: Annotated[float | None, Column("tokens to it, of those outside", number)]
    distance: Annotated[float | None, Column("tokens to it, over all", number)]
    distance_difference: Annotated[float | None, Column("Δ to constant", number)]
    distance_difference_low: float | None
    distance_difference_high: float | None
    verdict: Annotated[str, Column("than the constant")]
    error: Annotated[float | None, Column("tokens from β*", number)]
    covered: Annotated[float | None, Column("reaches β*, %", percent)]
    covered_low: float | None
    covered_high: float | None
    tokens: Annotated[float, Column("its own tokens", number)]
    prompt_tokens: Annotated[float, Column("tokens it reads", number)]


RANGES = columns_of(
    Score, "estimator", "without_estimate", "in_range", "distance_outside", "distance", "distance_difference", "verdict"
)
STARS = columns_of(Score, "estimator", "error", "covered", "tokens", "prompt_tokens")


def score_tables(slug: str, scores: Sequence[Score], *beside: Mapping[str, Any]) -> list[Table]:
    """Tables of estimators' scores: against the ideal ranges, with other figures beside, and against β*."""
    ranges = f"Budgets against the ideal ranges (A.2), {scores[0].questions} held-out questions"
    stars = f"Budgets against β*, and what an estimate costs, {scores[0].questions} held-out questions"
    return [
        table_of(f"estimators-ranges-{slug}", ranges, RANGES, [*scores, *beside]),
        table_of(f"estimators-stars-{slug}", stars, STARS, scores),
    ]


def held_out_questions(records: Sequence[Record], stars: Mapping[str, int | None]) -> list[HeldOutQuestion]:
    """Questions of a grid search with an ideal range and a β* (by question hash)."""
    found = [
        (record.question, ideal_range(points(record)), stars.get(record.question.question_hash)) for record in records
    ]
    return [HeldOutQuestion(question, window, star) for question, window, star in found if window and star]


def score(
    name: str,
    held_out: Sequence[HeldOutQuestion],
    estimates: Sequence[Estimate],
    constant: Sequence[Estimate],
    multiplier: float,
) -> Score:
    """Score `estimates`, one per question; differences are to those of `constant`."""
    budgets = [estimate.budget(multiplier) for estimate in estimates]
    distances = _distances(held_out, budgets)
    of_constant = _distances(held_out, [estimate.budget(multiplier) for estimate in constant])
    inside = sum(distance == 0 for distance in distances)
    known = [(one.star, budget) for one, budget in zip(held_out, budgets, strict=True) if budget is not None]
    outside = [distance for distance in distances if distance]
    both = zip(distances, of_constant, strict=True)
    pairs = [(ours, theirs) for ours, theirs in both if ours is not None and theirs is not None]
    compared = pairs and estimates is not constant
    difference = paired_difference(*zip(*pairs, strict=True)) if compared else UNKNOWN
    covered = sum(star <= budget for star, budget in known)
    asked = [estimate.completion for estimate in estimates if estimate.completion]
    return Score(
        name,
        len(held_out),
        len(held_out) - len(known),
        inside / len(held_out),
        *wilson(inside, len(held_out)),
        fmean(outside) if outside else None,
        fmean(distance for distance in distances if distance is not None) if known else None,
        *difference,
        _verdict(*difference[1:]),
        fmean(abs(budget - star) for star, budget in known) if known else None,
        covered / len(known) if known else None,
        *(wilson(covered, len(known)) if known else UNKNOWN[1:]),
        sum(completion.tokens for completion in asked) / len(held_out),
        sum(completion.prompt_tokens for completion in asked) / len(held_out),
    )


def _verdict(low: float | None, high: float | None) -> str:
    """Whether budgets are nearer to the ideal ranges than the constant's, by the interval of the difference."""
    if low is None or high is None:
        return ""
    if high < 0:
        return "nearer"
    return "farther" if low > 0 else "no difference shown"


def _distances(held_out: Sequence[HeldOutQuestion], budgets: Sequence[int | None]) -> list[float | None]:
    return [
        None if budget is None else one.window.distance(budget) for one, budget in zip(held_out, budgets, strict=True)
    ]
