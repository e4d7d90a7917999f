"""Tokens and accuracy by budget (Table 8): the table of a grid search, and the curves of one or more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure as Canvas

from tale.analysis.elasticity import Step
from tale.analysis.plot import draw_elasticity
from tale.results.blocks import Column, Figure, Table, cells_of, number, percent, table_of, two_digits, whole
from tale.results.figures import figure, legend
from tale.results.paper import FIGURES, paper

PAPER = "the paper, Table 8"
SHARE = Column("budget", "budget, × vanilla tokens")
BY_BUDGET = (
    SHARE,
    Column("questions", "questions", whole),
    Column("accuracy", "right, %", percent),
    Column("used", "tokens used", number),
    Column("used_share", "× vanilla", two_digits),
    Column("paper_accuracy", *FIGURES["accuracy"], PAPER),
    Column("paper_tokens", *FIGURES["output_tokens"], PAPER),
)
ADHERENCE = (
    SHARE,
    Column("asked", "tokens asked for", number),
    Column("adherence", "used / asked, median", two_digits),
    Column("within", "within the budget, %", percent),
    Column("cut_off", "cut off, %", percent),
)


def elasticity_tables(slug: str, curve: Sequence[Step]) -> list[Table]:
    """One search's curve, the paper's figures beside the shares that it has tried too; and how budgets were kept to."""
    label, rows = curve[0].records, [_row(step) for step in curve]
    caption = f"{label}: tokens and accuracy by budget (Table 8), of the questions that vanilla CoT answers right"
    asked = [row for row in rows if row["share"] is not None]
    return [
        table_of(f"elasticity-{slug}", caption, BY_BUDGET, rows),
        table_of(f"adherence-{slug}", f"{label}: adherence to the budget", ADHERENCE, asked),
    ]


def elasticity_figure(slug: str, curves: Sequence[Step]) -> Figure:
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


def _row(step: Step) -> dict[str, Any]:
    budget = "vanilla CoT" if step.share is None else f"{step.share:.4g}"
    accuracy, tokens = paper()["shares"].get(step.share, (None, None))
    theirs = {"paper_accuracy": accuracy and accuracy / 100, "paper_tokens": tokens}
    return {**cells_of(step, "accuracy", "used"), "budget": budget, **theirs}
