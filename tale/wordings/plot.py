"""Plots of accuracy and tokens against the budget: two panels per wording, one line per model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tale.errors import not_none
from tale.output.figures import literal, plt, save
from tale.wordings.regions import Cell, Region

MARKERS: dict[Region, str] = {"obeyed": "o", "ignored": "x", "overdone": "v"}
ACROSS = 6  # wordings side by side
WIDE = 26  # characters of a wording in a line


def plot(cells: Sequence[Cell], task: str, file: Path) -> None:
    """Write a PNG of `draw`: one task's cells."""
    count = len(wordings_of(cells))
    across = min(ACROSS, count)
    bands = -(-count // across)
    figure, grid = plt.subplots(
        2 * bands, across, figsize=(max(5, 2.6 * across), 1 + 4.2 * bands), layout="constrained", squeeze=False
    )
    pairs = [(grid[2 * band][i], grid[2 * band + 1][i]) for band in range(bands) for i in range(across)]
    for axes in (axes for pair in pairs[count:] for axes in pair):
        axes.set_axis_off()
    draw(pairs[:count], cells)
    figure.suptitle(fill(literal(task), 80))
    legend(figure, cells, 3)
    save(figure, file)


def draw(pairs: Sequence[tuple[Axes, Axes]], cells: Sequence[Cell]) -> None:
    """One task: per wording accuracy with 95 % intervals (upper panel) and median tokens (lower panel, log scales).

    Dashed lines are vanilla CoT, the dotted one is the budget itself. Markers show regions.
    """
    vanilla = {cell.model: cell for cell in cells if cell.budget is None}
    budgets = sorted({cell.budget for cell in cells if cell.budget is not None})
    highest = max(1, *(cell.median for cell in cells))
    for (accuracy, tokens), wording in zip(pairs, wordings_of(cells), strict=True):
        of = [cell for cell in cells if cell.wording == wording]
        for i, (model, rows) in enumerate(groupby(of, key=lambda cell: cell.model)):
            _line(accuracy, tokens, list(rows), vanilla[model], f"C{i}")
        tokens.plot(budgets, budgets, ":", color="gray")
        accuracy.set(title=fill(literal(wording), WIDE), ylabel="right, %", ylim=(-3, 103))
        tokens.set(ylabel="tokens, median", xlabel="tokens asked for", yscale="log", ylim=(1, 1.5 * highest))
        tokens.yaxis.set_major_formatter("{x:g}")
        for axes in (accuracy, tokens):
            axes.title.set_fontsize("small")
            axes.set_xscale("log")
            axes.set_xticks(budgets, map(str, budgets))
            axes.minorticks_off()
            axes.grid(alpha=0.3)


def legend(figure: Figure, cells: Sequence[Cell], columns: int) -> None:
    """Add the legend of colours, lines and markers below the axes."""
    models = dict.fromkeys(cell.model for cell in cells)
    lines = [Line2D([], [], color=f"C{i}", label=literal(model)) for i, model in enumerate(models)]
    lines += [
        Line2D([], [], color="gray", linestyle="--", label="vanilla CoT"),
        Line2D([], [], color="gray", linestyle=":", label="as asked"),
    ]
    lines += [Line2D([], [], color="gray", marker=m, linestyle="", label=name) for name, m in MARKERS.items()]
    figure.legend(handles=lines, loc="outside lower center", frameon=False, ncols=columns)


def wordings_of(cells: Sequence[Cell]) -> list[str]:
    """The wordings, in their order."""
    return list(dict.fromkeys(cell.wording for cell in cells if cell.budget is not None))


def _line(accuracy: Axes, tokens: Axes, rows: Sequence[Cell], vanilla: Cell, color: str) -> None:
    rows = sorted(rows, key=lambda cell: not_none(cell.budget))
    asked = [not_none(cell.budget) for cell in rows]
    accuracy.plot(asked, [100 * cell.accuracy for cell in rows], color=color)
    low, high = ([100 * getattr(cell, f"accuracy_{end}") for cell in rows] for end in ("low", "high"))
    accuracy.fill_between(asked, low, high, alpha=0.15, color=color)
    tokens.plot(asked, [cell.median for cell in rows], color=color)
    for budget, cell in zip(asked, rows, strict=True):
        marker = MARKERS[cell.region] if cell.region else ""
        accuracy.plot(budget, 100 * cell.accuracy, marker, color=color)
        tokens.plot(budget, cell.median, marker, color=color)
    accuracy.axhline(100 * vanilla.accuracy, linestyle="--", linewidth=1, color=color)
    tokens.axhline(vanilla.median, linestyle="--", linewidth=1, color=color)
