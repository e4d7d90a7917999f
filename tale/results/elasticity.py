"""Tokens and accuracy by budget (Table 8): the table of a grid search, and the curves of one or more."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure as Canvas

from tale.analysis.elasticity import BudgetLevel, curve_tables
from tale.analysis.plot import draw_elasticity
from tale.output.figures import legend
from tale.output.formats import number, percent
from tale.output.tables import Column, Table
from tale.results.blocks import Figure
from tale.results.figures import figure
from tale.results.paper import FIGURES, paper

PAPER = "the paper, Table 8"
BESIDE = {
    "paper_accuracy": Column(*FIGURES["accuracy"], PAPER),
    "paper_tokens": Column(*FIGURES["output_tokens"], PAPER),
}


def elasticity_tables(slug: str, curve: Sequence[BudgetLevel]) -> list[Table]:
    """One search's curve, with the paper's figures for equal shares, and its adherence to budgets."""
    return curve_tables(slug, [{**vars(step), **_theirs(step)} for step in curve], BESIDE)


def elasticity_figure(slug: str, curves: Sequence[BudgetLevel]) -> Figure:
    """The curves of all searches in one figure."""
    names = {step.records for step in curves}

    def drawn(canvas: Canvas) -> None:
        draw_elasticity(canvas.subplots(3), curves)
        legend(canvas, 1)

    caption = "Tokens and accuracy by the budget asked for, and accuracy by the tokens used; bands are 95 % intervals."
    said = "; ".join(
        f"{step.records} at {step.share:.4g}: {number(step.used)} tokens, {percent(step.accuracy)} % right"
        for step in curves
        if step.share is not None
    )
    return figure(f"elasticity-{slug}", caption, f"{caption} {said}.", drawn, (4.6, 8.2 + 0.3 * len(names)))


def _theirs(step: BudgetLevel) -> dict[str, float | None]:
    accuracy, tokens = paper()["shares"].get(step.share, (None, None))
    return {"paper_accuracy": accuracy and accuracy / 100, "paper_tokens": tokens}
