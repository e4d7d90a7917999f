"""Tokens and accuracy by budget (Table 8): the table of a grid search, and the curves of one or more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure as Canvas

from tale.analysis.elasticity import Step
from tale.analysis.plot import draw_elasticity
from tale.report.blocks import Column, Figure, Table, cells_of, number, percent, table_of, two_digits, whole
from tale.report.figures import figure, legend
from tale.report.paper import FIGURES, paper

PAPER = "the paper, Table 8"
COLUMNS = (
    Column("budget", "budget, × vanilla tokens"),
    Column("questions", "questions", whole),
    Column("accuracy", "right, %", percent),
    Column("asked", "tokens asked for", number),
    Column("used", "tokens used", number),
    Column("used_share", "× vanilla", two_digits),
    Column("adherence", "used / asked, median", two_digits),
    Column("within", "within the budget, %", percent),
    Column("cut_off", "cut off, %", percent),
    Column("paper_accuracy", *FIGURES["accuracy"], PAPER),
    Column("paper_tokens", *FIGURES["output_tokens"], PAPER),
)


def elasticity_table(name: str, curve: Sequence[Step]) -> Table:
    """One search's curve, the paper's figures beside the shares that it has tried too."""
    caption = (
        f"{curve[0].records}: tokens and accuracy by budget (Table 8), of the questions that vanilla CoT answers right"
    )
    return table_of(name, caption, COLUMNS, [_row(step) for step in curve])


def elasticity_figure(name: str, curves: Sequence[Step]) -> Figure:
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
    return figure(name, caption, f"{caption} {said}.", drawn, (4.6, 7.6 + 0.3 * len(names)))


def _row(step: Step) -> dict[str, Any]:
    budget = "vanilla CoT" if step.share is None else f"{step.share:.4g}"
    accuracy, tokens = paper()["shares"].get(step.share, (None, None))
    theirs = {"paper_accuracy": accuracy and accuracy / 100, "paper_tokens": tokens}
    return {**cells_of(step, "accuracy", "used"), "budget": budget, **theirs}
