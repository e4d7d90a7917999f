"""The section of an analysis: its tables, and Fig 2 and 3, with the paper's figures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from statistics import fmean, median
from typing import Any

from matplotlib.figure import Figure as Canvas

from tale.analysis.elasticity import BudgetLevel, ModelSummary, QuestionSummary, model_tables
from tale.analysis.paths import Iteration, Saving, savings_table
from tale.analysis.plot import SHOWN, draw_paths, draw_savings
from tale.output.figures import legend
from tale.output.formats import number, percent, two_digits, whole
from tale.output.tables import Column, Table, table_of
from tale.results.blocks import Block, Figure, Section, Text
from tale.results.elasticity import elasticity_figure, elasticity_tables
from tale.results.figures import figure
from tale.results.paper import paper
from tale.results.runs import AnalysisRun

IDEAL = {
    "records": Column("search"),
    "questions": Column("questions with a right budget", whole),
    "low": Column("from, tokens", number),
    "high": Column("to, tokens", number),
    "low_share": Column("from, × vanilla", two_digits),
    "high_share": Column("to, × vanilla", two_digits),
    "star": Column("β* inside, %", percent),
}
NOTE = (
    "In brackets 95 % intervals. The paper's figures are of other models and questions. Its Table 8 is over all "
    "questions, here only those that vanilla CoT answers right were asked under budgets, so its own row is 100 %. "
    "Monotone (Table 2): every budget from β* up is answered right, every one below wrong. Ideal range (A.1): the "
    "third of a question's right budgets that takes the fewest tokens; the paper prints no figure for it."
)


def analysis_section(run: AnalysisRun) -> Section:
    """The section of one analysis."""
    models, paths = run.rows(ModelSummary), run.rows(Iteration)
    known = {row.records for row in models} | {row.records for row in paths}
    blocks: list[Block] = [Text(f"Of {', '.join(run.recipe.records)}.")]
    if lost := [label for label in run.labels if label not in known]:
        text = f"No results of {', '.join(lost)}: the run was not finished; run its command again."
        blocks.append(Text(text, warning=True))
    if models:
        blocks += _grids(run, models)
    if paths:
        blocks += _halved(run, paths)
    return Section(f"analysis-{run.slug}", f"Analysis: {run.name}", blocks)


def _grids(run: AnalysisRun, models: Sequence[ModelSummary]) -> list[Block]:
    curves, slug = run.rows(BudgetLevel), f"analysis-{run.slug}"
    each = [list(rows) for _, rows in groupby(curves, key=lambda step: step.records)]
    tables = [table for i, rows in enumerate(each, 1) for table in elasticity_tables(f"{slug}-{i}", rows)]
    theirs = paper()["monotone"]
    beside = {"records": f"the paper ({theirs['table']})", "monotone_share": theirs["share"] / 100}
    shown = [*model_tables(run.slug, models, beside), *tables, _ideal(run)]
    return [*shown, Text(NOTE), elasticity_figure(slug, curves)]


def _ideal(run: AnalysisRun) -> Table:
    each = groupby(run.rows(QuestionSummary), key=lambda one: one.records)
    rows = [{"records": label, **_ranges(list(questions))} for label, questions in each]
    return table_of(f"analysis-ideal-{run.slug}", "Ideal range of budgets (A.1), medians over questions", IDEAL, rows)


def _ranges(questions: Sequence[QuestionSummary]) -> dict[str, Any]:
    ranges = [(o.ideal_low, o.ideal_high, o.vanilla_tokens, o.star) for o in questions if o.ideal_low and o.ideal_high]
    if not ranges:
        return {"questions": 0}
    return {
        "questions": len(ranges),
        "low": median(low for low, *_ in ranges),
        "high": median(high for _, high, *_ in ranges),
        "low_share": median(low / vanilla for low, _, vanilla, _ in ranges),
        "high_share": median(high / vanilla for _, high, vanilla, _ in ranges),
        "star": fmean(star is not None and low <= star <= high for low, high, _, star in ranges),
    }


def _halved(run: AnalysisRun, paths: Sequence[Iteration]) -> list[Block]:
    blocks: list[Block] = []
    savings = run.rows(Saving)
    searches = [list(rows) for _, rows in groupby(paths, key=lambda one: one.records)]
    if savings:
        blocks += [savings_table(run.slug, savings), _saved(run, savings)]
    if lost := [rows[0].records for rows in searches if rows[0].records not in {row.records for row in savings}]:
        text = f"{', '.join(lost)}: nothing was saved that Fig 3 could show, no question has a target."
        blocks.append(Text(text, warning=True))
    return [*blocks, *(_searched(f"analysis-paths-{i}-{run.slug}", rows) for i, rows in enumerate(searches, 1))]


def _saved(run: AnalysisRun, savings: Sequence[Saving]) -> Figure:
    def drawn(canvas: Canvas) -> None:
        draw_savings(canvas.subplots(), savings)
        legend(canvas)

    caption = "Mean tokens of vanilla CoT and under the searched budget (Fig 3)."
    said = "; ".join(f"{row.records} {number(row.vanilla)} against {number(row.searched)}" for row in savings)
    size = (4.6, 1.4 + 0.8 * len(savings))
    return figure(f"analysis-savings-{run.slug}", caption, f"{caption} {said}.", drawn, size)


def _searched(name: str, rows: Sequence[Iteration]) -> Figure:
    def drawn(canvas: Canvas) -> None:
        asked, used = canvas.subplots(2)
        draw_paths(asked, used, rows)

    caption = f"{rows[0].records}: budget and tokens over the search (Fig 2), a line a question, the longest searches."
    ends = [list(one)[-1] for _, one in groupby(rows, key=lambda one: one.question)]
    said = (
        f"{len(ends)} questions, {min(len(ends), SHOWN)} shown; at most {max(one.iteration for one in ends)} budgets."
    )
    return figure(name, caption, f"{caption} {said}", drawn, (4.6, 5.2))
