"""Accuracy against output tokens, a point a method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from tale.evaluation.summary import Row


def plot(rows: Sequence[Row], title: str, file: Path) -> None:
    """Write a PNG: up is better, left is cheaper; bars are 95 % intervals of the accuracy."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for row in rows:
        error = [[100 * (row.accuracy - row.accuracy_low)], [100 * (row.accuracy_high - row.accuracy)]]
        axes.errorbar(row.output_tokens, 100 * row.accuracy, yerr=error, fmt="o", capsize=3, label=row.method)
    axes.set(title=title, xlabel="mean output tokens a question, the estimator's included", ylabel="accuracy, %")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    save(figure, file)


def save(figure: Figure, file: Path) -> None:
    """Write a figure as PNG, whole or not at all, and let it go."""
    draft = file.with_suffix(".draft.png")
    figure.savefig(draft, dpi=150)
    plt.close(figure)
    draft.replace(file)
