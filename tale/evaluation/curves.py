"""Plots of a score against tokens and price, and of accuracy as one answer grows: a panel for each strategy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import FuncFormatter, LogLocator

from tale.evaluation.anytime import quality_at, runs_by_strategy
from tale.evaluation.budgets import baselines
from tale.evaluation.replies import Reply
from tale.evaluation.strategies import StrategyRow
from tale.evaluation.summary import metric_name
from tale.output.figures import legend, literal, plt, save
from tale.solvers.base import Method
from tale.text import SHOWN

AXES = {
    "output_tokens": "mean output tokens a question",
    "total_tokens": "mean tokens a question, read and generated",
    "expense": "mean price of a question, 10⁻⁵ $",
}
MARKERS = "sD^vP*Xph<>"  # of methods without a budget B
MOST_ACROSS = 5  # panels side by side in a file
WIDE = 32  # characters of a strategy's name in a line
OWN: dict[str, Any] = {"color": "C0", "label": "the panel's strategy", "zorder": 3}
SINGLE: dict[str, Any] = {"color": "gray", "label": "the single chain", "linestyle": "--"}
OTHERS: dict[str, Any] = {"color": "gray", "label": "the other strategies", "linewidth": 0.8, "alpha": 0.35}


def plot_strategies(rows: Sequence[StrategyRow], title: str, file: Path) -> None:
    """Write a PNG of `draw` for each kind of cost, one below the other."""
    costs = costs_of(rows)
    figure, across = _file(len(_curves(rows)), len(costs))
    for part, cost in zip(figure.subfigures(len(costs), squeeze=False).flat, costs, strict=True):
        draw(part, rows, cost, across)
    _write(figure, title, file)


def costs_of(rows: Sequence[StrategyRow]) -> list[str]:
    """The kinds of cost that rows have: no price without the recipe's prices."""
    return [cost for cost in AXES if getattr(rows[0], cost) is not None]


def draw(figure: FigureBase, rows: Sequence[StrategyRow], cost: str, across: int = 2) -> None:
    """A panel a strategy: its score against one cost with a 95 % band, beside that of the single chain at its budgets.

    Every panel has the other strategies' curves in light gray, and the methods without a budget B as points.
    """
    factor, name = (100, "accuracy, %") if rows[0].metric == "accuracy" else (1, metric_name(rows[0].metric))
    curves = _curves(rows)
    alone = [row for row in rows if not row.curve]
    panels = _panels(figure, list(curves), across, AXES[cost], f"{name}, with 95 % intervals")
    for axes, of in zip(panels, curves.values(), strict=True):
        for other in curves.values():
            axes.plot([getattr(row, cost) for row in other], [factor * row.score for row in other], **OTHERS)
        budgets = {_budget(row) for row in of if row.single_difference is not None}
        single = [row for row in rows if _budget(row) in budgets and row.single_difference is None]
        for points, style in ((single, SINGLE), (of, OWN)):
            at = [getattr(row, cost) for row in points]
            value, low, high = factor * numpy.array([_bounds(row) for row in points]).reshape(-1, 3).T
            axes.plot(at, value, marker="o", ms=3, **style)
            axes.fill_between(at, low, high, color=style["color"], alpha=0.15, linewidth=0)
        for marker, row in zip(cycle(MARKERS), alone, strict=False):
            middle, low, high = factor * numpy.array(_bounds(row))
            bars: dict[str, Any] = {"yerr": [[middle - low], [high - middle]], "fmt": marker, "ms": 4, "lw": 1}
            axes.errorbar(getattr(row, cost), middle, **bars, color="gray", label=literal(row.method))
        axes.set_xscale("log")
        left, right = axes.get_xlim()
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if right < 100 * left else (1,)))  # else labels overlap
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.minorticks_off()


def _curves(rows: Sequence[StrategyRow]) -> dict[str, list[StrategyRow]]:
    """Each strategy's rows, by B."""
    curves: dict[str, list[StrategyRow]] = {row.curve: [] for row in rows if row.curve}
    for row in sorted(rows, key=lambda row: row.total_budget or 0):
        if row.curve:
            curves[row.curve].append(row)
    return curves


def _budget(row: StrategyRow) -> tuple[float | None, float | None]:
    return row.total_budget, row.budget_multiplier


def _bounds(row: StrategyRow) -> tuple[float, float, float]:
    return row.score, row.score_low, row.score_high


def plot_anytime(methods: Sequence[Method], replies: Mapping[str, list[Reply]], title: str, file: Path) -> None:
    """Write a PNG of `draw_anytime`."""
    figure, across = _file(len(runs_by_strategy(methods)))
    draw_anytime(figure, methods, replies, across)
    _write(figure, title, file)


def draw_anytime(
    figure: FigureBase, methods: Sequence[Method], replies: Mapping[str, list[Reply]], across: int = 2
) -> None:
    """A panel a strategy: the accuracy of its answers by each output token of its run at the largest B.

    Beside it that of the single chain at this B.
    """
    runs = runs_by_strategy(methods)
    most = {f"{strategy}, B = {max(of)}": max(of) for strategy, of in runs.items()}
    of_name = {method.name: method for method in methods}
    panels = _panels(figure, list(most), across, "output tokens of a question", "accuracy of the answer so far, %")
    for axes, of, budget in zip(panels, runs.values(), most.values(), strict=True):
        tokens = numpy.unique(numpy.linspace(0, budget, 257).astype(int)).tolist()
        single, _ = baselines(of_name[of[budget]], methods)
        for run, style in ((single, SINGLE), (of[budget], OWN)):
            if run:
                axes.step(tokens, 100 * quality_at(replies[run], tokens).mean(axis=0), where="post", **style)
        axes.set_xlim(left=0)


def _file(panels: int, blocks: int = 1) -> tuple[Figure, int]:
    """A figure for blocks of so many panels each, and how many of them are side by side."""
    down = -(-panels // MOST_ACROSS)
    across = -(-panels // down)
    size = max(7, 2.6 * across), 1.2 + blocks * (0.4 + 2 * down)
    return plt.figure(figsize=size, layout="constrained"), across


def _write(figure: Figure, title: str, file: Path) -> None:
    figure.suptitle(fill(literal(title, 2 * SHOWN), 80), fontsize="medium")
    legend(figure, 3)
    save(figure, file)


def _panels(figure: FigureBase, names: Sequence[str], across: int, x: str, y: str) -> list[Axes]:
    """Panels with these titles, the same scales, and one label for each; a part of the figure, above its legend."""
    part = figure.subfigures(squeeze=False)[0, 0]
    part.supxlabel(x, fontsize="medium")
    part.supylabel(y, fontsize="medium")
    grid = part.subplots(-(-len(names) // across), across, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    panels, rest = grid[: len(names)], grid[len(names) :]
    for axes, name in zip(panels, names, strict=True):
        whole = literal(name).replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
        axes.set_title(fill(whole, WIDE), fontsize="small")
        axes.tick_params(labelsize="small")
        axes.grid(alpha=0.3)
    for axes in panels[-across:]:
        axes.tick_params(labelbottom=True)
    for axes in rest:
        axes.set_axis_off()
    return panels
