"""Accuracy against output tokens, a point a method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tale.evaluation.summary import Row


def plot(rows: Sequence[Row], title: str, file: Path) -> None:
    """Write a PNG of `draw`."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    draw(axes, rows)
    axes.set_title(title)
    figure.legend(loc="outside right upper", frameon=False)
    save(figure, file)


def save(figure: Figure, file: Path) -> None:
    """Write a figure as PNG, whole or not at all, and let it go."""
    draft = file.with_suffix(".draft.png")
    figure.savefig(draft, dpi=150)
    plt.close(figure)
    draft.replace(file)


def draw(axes: Axes, rows: Sequence[Row], tokens: Mapping[str, tuple[float, float]] | None = None) -> None:
    """Up is better, left is cheaper; bars are 95 % intervals, those of the tokens where they are given by method.

    The line joins the Pareto front.
    """
    for row in rows:
        low, high = (tokens or {}).get(row.method, (row.output_tokens, row.output_tokens))
        axes.errorbar(
            row.output_tokens,
            100 * row.accuracy,
            xerr=[[row.output_tokens - low], [high - row.output_tokens]],
            yerr=[[100 * (row.accuracy - row.accuracy_low)], [100 * (row.accuracy_high - row.accuracy)]],
            fmt="o",
            capsize=3,
            label=literal(row.method),
        )
    best = front(rows)
    if len(best) > 1:
        axes.plot([r.output_tokens for r in best], [100 * r.accuracy for r in best], "--", lw=1, color="gray", zorder=1)
    axes.set(xlabel="mean output tokens a question, the estimator's included", ylabel="accuracy, %")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)


def literal(text: str) -> str:
    """As it stands, where matplotlib would take what is between dollars for a formula."""
    return text.replace("$", r"\$")


def front(rows: Sequence[Row]) -> list[Row]:
    """The Pareto front, cheapest first: what no other method beats in accuracy at as few tokens, or fewer."""
    best: list[Row] = []
    for row in sorted(rows, key=lambda r: (r.output_tokens, -r.accuracy)):
        if not best or row.accuracy > best[-1].accuracy:
            best.append(row)
    return best
