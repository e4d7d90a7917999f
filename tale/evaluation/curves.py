"""Plots of a score against tokens and price, a curve per strategy, and of accuracy as one answer grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tale.evaluation.anytime import quality_at, runs_by_strategy
from tale.evaluation.replies import Reply
from tale.evaluation.strategies import StrategyRow
from tale.evaluation.summary import metric_name
from tale.output.figures import literal, plt, save
from tale.solvers.base import Method
from tale.text import SHOWN

AXES = {
    "output_tokens": "mean output tokens a question",
    "total_tokens": "mean tokens a question, read and generated",
    "expense": "mean price of a question, 10⁻⁵ $",
}
COLOURS = [f"C{i}" for i in range(10) if i != 7]  # without gray
LINES = ("-", "--", ":", "-.")  # a colour comes again with the next one
MARKERS = "sD^vP*Xph<>"  # of methods without a budget B


def plot_strategies(rows: Sequence[StrategyRow], title: str, file: Path) -> None:
    """Write a PNG with a panel for each kind of cost."""
    costs = costs_of(rows)
    figure, panels = plt.subplots(1, len(costs), figsize=(4.4 * len(costs), 5.6), sharey=True, layout="constrained")
    for axes, cost in zip(panels, costs, strict=True):
        draw(axes, rows, cost)
    for axes in panels[1:]:
        axes.set_ylabel("")
    figure.suptitle(fill(literal(title, 2 * SHOWN), SHOWN))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", frameon=False, ncols=3)
    save(figure, file)


def costs_of(rows: Sequence[StrategyRow]) -> list[str]:
    """The kinds of cost that rows have: no price without the recipe's prices."""
    return [cost for cost in AXES if getattr(rows[0], cost) is not None]


def draw(axes: Axes, rows: Sequence[StrategyRow], cost: str) -> None:
    """Accuracy against one cost: a curve with a 95 % band per strategy, a point per method without a budget B."""
    factor, name = (100, "accuracy, %") if rows[0].metric == "accuracy" else (1, metric_name(rows[0].metric))
    curves = dict.fromkeys(row.curve for row in rows if row.curve)
    for i, curve in enumerate(curves):
        of = sorted((row for row in rows if row.curve == curve), key=lambda row: row.total_budget or 0)
        at = [getattr(row, cost) for row in of]
        value, low, high = (factor * numpy.array(end) for end in zip(*map(_bounds, of), strict=True))
        style = _style(i)
        axes.plot(at, value, marker="o", ms=4, label=literal(curve), **style)
        axes.fill_between(at, low, high, color=style["color"], alpha=0.08, linewidth=0)
        for end in (low, high):
            axes.plot(at, end, lw=0.6, alpha=0.5, **style)
    for i, row in enumerate(row for row in rows if not row.curve):
        middle, least, most = (factor * end for end in _bounds(row))
        bars: dict[str, Any] = {"fmt": MARKERS[i % len(MARKERS)], "capsize": 3, "color": "gray", "ms": 6, "lw": 1}
        ends = [[middle - least], [most - middle]]
        axes.errorbar(getattr(row, cost), middle, yerr=ends, label=literal(row.method), **bars)
    axes.set(xlabel=AXES[cost], ylabel=name, xscale="log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)


def _style(i: int) -> dict[str, Any]:
    again, colour = divmod(i, len(COLOURS))
    return {"color": COLOURS[colour], "linestyle": LINES[again % len(LINES)]}


def _bounds(row: StrategyRow) -> tuple[float, float, float]:
    return row.score, row.score_low, row.score_high


def plot_anytime(methods: Sequence[Method], replies: Mapping[str, list[Reply]], title: str, file: Path) -> None:
    """Write a PNG of `draw_anytime`."""
    figure, axes = plt.subplots(figsize=(8, 6), layout="constrained")
    draw_anytime(axes, methods, replies)
    axes.set_title(fill(literal(title, 2 * SHOWN), SHOWN))
    figure.legend(loc="outside lower center", frameon=False, ncols=2)
    save(figure, file)


def draw_anytime(axes: Axes, methods: Sequence[Method], replies: Mapping[str, list[Reply]]) -> None:
    """Accuracy at each number of output tokens, from the answers of each strategy's run at its largest B."""
    for i, (strategy, runs) in enumerate(runs_by_strategy(methods).items()):
        of = replies[runs[max(runs)]]
        tokens = numpy.unique(numpy.linspace(0, max(runs), 257).astype(int)).tolist()
        quality = 100 * quality_at(of, tokens).mean(axis=0)
        style = _style(i)
        axes.step(tokens, quality, where="post", label=literal(f"{strategy}, B = {max(runs)}"), **style)
    axes.set(xlabel="output tokens of a question", ylabel="accuracy of the answer so far, %")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
