"""Regions of wordings and budgets, the slopes of tokens on budgets, and the best wording."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from statistics import fmean, median
from typing import Annotated, Any, Literal

import numpy

from tale.errors import not_none
from tale.evaluation.replies import Reply
from tale.output.formats import number, percent, points, two_digits, whole
from tale.output.tables import Column, Table, columns_of, table_of
from tale.statistics import UNKNOWN, bootstrap_mean, compare_paired, mean_share, paired_difference

Region = Literal["obeyed", "ignored", "overdone"]
VANILLA = "Vanilla CoT"
PAPERS = "the paper's line"
RISES = 0.1  # slope with which ten times the budget makes answers a quarter longer


@dataclass(frozen=True)
class Cell:
    """One wording under one budget (None: vanilla CoT), of one model on one task.

    `used` is the mean of the answers' tokens, `median` their median, which decides the region; `within` is the share of
    answers no longer than the budget. Intervals are 95 %.
    """

    model: str
    task: str
    wording: str
    budget: int | None
    questions: int
    accuracy: Annotated[float, Column("right, %", percent)]
    accuracy_low: float
    accuracy_high: float
    used: Annotated[float, Column("tokens", number)]
    used_low: float
    used_high: float
    median: float
    within: float | None
    in_format: float
    cut_off: float
    region: Annotated[Region | None, Column("region")]


@dataclass(frozen=True)
class Curve:
    """A wording over all budgets: the slope of log tokens on log budget with its 95 % interval, budgets by region.

    With a slope of 1 answers are twice as long under twice the budget, with 0 they do not depend on it.
    """

    model: str
    task: str
    wording: Annotated[str, Column("wording")]
    slope: Annotated[float, Column("slope", two_digits)]
    slope_low: float
    slope_high: float
    obeyed: str
    ignored: str
    overdone: str


@dataclass(frozen=True)
class Best:
    """The best wording and budget of a model on a task, chosen on `chosen_on` questions, evaluated on the others.

    Differences are paired, to vanilla CoT and to the paper's line with its best budget, `paper_budget`, chosen in the
    same way; None if none of its budgets is cheap enough, or the best wording is the paper's.
    """

    model: Annotated[str, Column("model")]
    task: Annotated[str, Column("task")]
    wording: Annotated[str, Column("wording")]
    budget: Annotated[int, Column("budget", whole)]
    chosen_on: int
    questions: Annotated[int, Column("questions", whole)]
    accuracy: Annotated[float, Column("right, %", percent)]
    accuracy_low: float
    accuracy_high: float
    used: Annotated[float, Column("tokens", number)]
    used_ratio: Annotated[float, Column("× vanilla", two_digits)]
    to_vanilla: Annotated[float, Column("Δ to vanilla CoT, points", points)]
    to_vanilla_low: float
    to_vanilla_high: float
    paper_budget: Annotated[int | None, Column("budget", whole, PAPERS)]
    to_paper: Annotated[float | None, Column("Δ to it, points", points, PAPERS)]
    to_paper_low: float | None
    to_paper_high: float | None
    tokens_to_paper: Annotated[float | None, Column("Δ tokens to it", number, PAPERS)]
    tokens_to_paper_low: float | None
    tokens_to_paper_high: float | None


@dataclass(frozen=True)
class WordingAnswers:
    """All answers of one model to one task, by wording and budget, over the same questions in the same order."""

    model: str
    task: str
    vanilla: list[Reply]
    answers: dict[str, dict[int, list[Reply]]]

    @property
    def replies(self) -> Iterator[Reply]:
        """All answers, vanilla CoT's first."""
        yield from self.vanilla
        for of in self.answers.values():
            for replies in of.values():
                yield from replies

    @cached_property
    def slopes(self) -> dict[str, tuple[float, float, float]]:
        """Each wording's slope, with its interval."""
        return {wording: slope(answers) for wording, answers in self.answers.items()}

    def of(self, questions: Collection[str]) -> WordingAnswers:
        """The answers to these questions only."""
        kept = lambda replies: [r for r in replies if r.question in questions]  # noqa: E731
        answers = {w: {b: kept(replies) for b, replies in of.items()} for w, of in self.answers.items()}
        return WordingAnswers(self.model, self.task, kept(self.vanilla), answers)


def region_tables(slug: str, cells: Sequence[Cell], curves: Sequence[Curve]) -> Iterator[Table]:
    """A table for each model and task: a row a wording; for each budget accuracy, tokens and region."""
    in_cell = columns_of(Cell, "accuracy", "used", "region")
    whose = lambda cell: (cell.task, cell.model)  # noqa: E731
    for i, ((task, model), found) in enumerate(groupby(sorted(cells, key=whose), key=whose), 1):
        columns, rows = columns_of(Curve, "wording", "slope"), dict[str, dict[str, Any]]()
        of = list(found)
        for cell in of:
            group = "" if cell.budget is None else f"under {cell.budget:,}"
            columns |= {f"{name}_{cell.budget}": replace(column, group=group) for name, column in in_cell.items()}
            row = rows.setdefault(cell.wording, {"wording": cell.wording})
            row |= {f"{name}_{cell.budget}": getattr(cell, name) for name in in_cell}
        for curve in curves:
            if (curve.task, curve.model) == (task, model):
                rows[curve.wording] |= vars(curve)
        caption = f"{task}, {model}: {of[0].questions} questions by wording and budget"
        yield table_of(f"{slug}-{i}", caption, columns, list(rows.values()))


def best_table(slug: str, best: Sequence[Best]) -> Table:
    """The best wording of each model on each task."""
    columns = columns_of(Best, "wording", "model", "task", "budget", "questions")
    caption = "The best wordings, confirmed on the other half of the questions"
    return table_of(f"{slug}-best", caption, columns | columns_of(Best), best)


def region(budget: int, used: float, vanilla: float, rises: bool) -> Region:
    """The region of a budget, by the `used` tokens of answers and those of `vanilla` (medians over questions).

    - overdone: answers use less than half of the budget or of vanilla's tokens, whichever is smaller;
    - else obeyed: they are no longer than the budget, and `rises`: with this wording answers grow with the budget (the
      whole interval of `Curve.slope` is above `RISES`);
    - else ignored: they are longer than the budget, or do not depend on it.
    """
    if used < min(budget, vanilla) / 2:
        return "overdone"
    return "obeyed" if used <= budget and rises else "ignored"


def cells(grid: WordingAnswers) -> list[Cell]:
    """The cells of vanilla CoT and of each wording and budget."""
    rows = [_cell(grid, VANILLA, None, grid.vanilla, None)]
    for wording, answers in grid.answers.items():
        rises = grid.slopes[wording][1] > RISES
        for budget, replies in answers.items():
            found = region(budget, median(_tokens(replies)), rows[0].median, rises)
            rows.append(_cell(grid, wording, budget, replies, found))
    return rows


def curves(grid: WordingAnswers, cells: Sequence[Cell]) -> list[Curve]:
    """One row per wording, from its cells."""
    rows = []
    for wording, slope in grid.slopes.items():
        budgets: dict[Region, list[str]] = {"obeyed": [], "ignored": [], "overdone": []}
        for cell in cells:
            if cell.wording == wording and cell.region:
                budgets[cell.region].append(str(cell.budget))
        rows.append(Curve(grid.model, grid.task, wording, *slope, *map(", ".join, budgets.values())))
    return rows


def slope(answers: dict[int, list[Reply]]) -> tuple[float, float, float]:
    """The least squares slope of log tokens on log budget, a question's mean, with its bootstrap interval."""
    asked = numpy.log(list(answers))
    used_BQ = numpy.log([[max(1, r.tokens) for r in replies] for replies in answers.values()])
    return bootstrap_mean(numpy.polyfit(asked, used_BQ, 1)[0].round(9) + 0.0)  # avoids -0.00 from rounding


def best_of(cells: Sequence[Cell], most: float) -> Cell | None:
    """The cell with the highest accuracy of those that use at most `most` tokens; of equals the one with the fewest."""
    return max((c for c in cells if c.used <= most), key=lambda c: (c.accuracy, -c.used), default=None)


def best_on_held_out(grid: WordingAnswers, choosing: Collection[str], paper: str | None, share: float) -> Best | None:
    """Choose the best wording and budget on the questions `choosing`, and evaluate it on the others.

    It may use at most `share` of vanilla CoT's tokens; None if no cell does, or vanilla CoT has no answers to the other
    questions. `paper` is the label of the paper's line.
    """
    chosen, held = grid.of(choosing), grid.of({r.question for r in grid.vanilla} - set(choosing))
    vanilla, *rest = cells(chosen)
    best = best_of(rest, share * vanilla.used)
    used = fmean(_tokens(held.vanilla))
    if best is None or not used:
        return None
    theirs = best_of([cell for cell in rest if cell.wording == paper], share * vanilla.used)
    other = theirs is not None and theirs != best
    ours, papers = (held.answers[c.wording][not_none(c.budget)] if c else [] for c in (best, theirs))
    return Best(
        grid.model,
        grid.task,
        best.wording,
        not_none(best.budget),
        best.questions,
        len(ours),
        *mean_share(_right(ours)),
        fmean(_tokens(ours)),
        fmean(_tokens(ours)) / used,
        *_gained(ours, held.vanilla),
        theirs.budget if theirs else None,
        *(_gained(ours, papers) if other else UNKNOWN),
        *(paired_difference(_tokens(ours), _tokens(papers)) if other else UNKNOWN),
    )


def _cell(grid: WordingAnswers, wording: str, budget: int | None, replies: list[Reply], found: Region | None) -> Cell:
    tokens = _tokens(replies)
    return Cell(
        grid.model,
        grid.task,
        wording,
        budget,
        len(replies),
        *mean_share(_right(replies)),
        *bootstrap_mean(tokens),
        median(tokens),
        fmean(count <= budget for count in tokens) if budget else None,
        fmean(r.via == "brackets" for r in replies),
        fmean(r.finish == "length" for r in replies),
        found,
    )


def _gained(ours: Sequence[Reply], theirs: Sequence[Reply]) -> tuple[float, float, float]:
    """The difference in accuracy, with its interval."""
    paired = compare_paired(_right(ours), _right(theirs))
    return paired.difference, *paired.interval()


def _right(replies: Sequence[Reply]) -> list[float]:
    return [float(r.correct is True) for r in replies]


def _tokens(replies: Sequence[Reply]) -> list[int]:
    return [r.tokens for r in replies]
