"""Plots of elasticity curves, search paths (Fig 2) and savings (Fig 3): as PNG, or drawn on given axes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from textwrap import fill

from matplotlib.axes import Axes

from tale.analysis.elasticity import BudgetLevel
from tale.analysis.paths import Iteration, Saving
from tale.errors import not_none
from tale.output.figures import literal, plt, save

SHOWN = 12  # questions per search in Fig 2, as more lines would overlap
WIDE = 28  # characters of a search's name in a line


def plot_elasticity(steps: Sequence[BudgetLevel], file: Path) -> None:
    """Write a PNG of `draw_elasticity`."""
    figure, panels = plt.subplots(1, 3, figsize=(14, 4.5), layout="constrained")
    draw_elasticity(panels, steps)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    save(figure, file)


def plot_paths(iterations: Sequence[Iteration], file: Path) -> None:
    """Write a PNG of `draw_paths`, a row of panels a search."""
    searches = [(label, list(rows)) for label, rows in groupby(iterations, key=lambda one: one.records)]
    size = (10, 0.8 + 3.4 * len(searches))
    figure, grid = plt.subplots(len(searches), 2, figsize=size, layout="constrained", squeeze=False)
    for (label, rows), (asked, used) in zip(searches, grid, strict=True):
        draw_paths(asked, used, rows)
        asked.set_title(f"{literal(label)}: {asked.get_title()}")
    save(figure, file)


def plot_savings(savings: Sequence[Saving], file: Path) -> None:
    """Write a PNG of `draw_savings`."""
    figure, axes = plt.subplots(figsize=(7, 1.6 + 0.9 * len(savings)), layout="constrained")
    draw_savings(axes, savings)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    save(figure, file)


def draw_elasticity(panels: Sequence[Axes], steps: Sequence[BudgetLevel]) -> None:
    """Tokens used and accuracy against the budget, accuracy against the tokens used; one line per search.

    Budgets and tokens are shares of vanilla's tokens. Bands are 95 % intervals.
    """
    tokens, accuracy, by_used = panels
    for label, rows in groupby(steps, key=lambda step: step.records):
        asked = [row for row in rows if row.share is not None]
        shares, used = [not_none(row.share) for row in asked], [row.used_share for row in asked]
        right = [100 * row.accuracy for row in asked]
        (line,) = tokens.plot(shares, used, "o-", label=wrapped_label(label))
        scale = [row.used_share / row.used for row in asked]
        low, high = (
            [getattr(r, end) * s for r, s in zip(asked, scale, strict=True)] for end in ("used_low", "used_high")
        )
        tokens.fill_between(shares, low, high, alpha=0.15, color=line.get_color())
        accuracy.plot(shares, right, "o-", color=line.get_color())
        by_used.plot(used, right, "o-", color=line.get_color())
        low, high = ([100 * getattr(row, f"accuracy_{end}") for row in asked] for end in ("low", "high"))
        accuracy.fill_between(shares, low, high, alpha=0.15, color=line.get_color())
    asked_for = sorted({step.share for step in steps if step.share is not None})
    tokens.plot(asked_for, asked_for, ":", color="gray", label="as asked")
    tokens.axhline(1, color="gray", linewidth=0.8)
    tokens.set(title="tokens used", ylabel="× vanilla CoT's tokens")
    tokens.set_ylim(bottom=0)
    accuracy.set(title="answered right, by the budget asked")
    by_used.set(title="answered right, by the tokens used", xlabel="tokens used, × vanilla CoT's")
    by_used.set_xlim(left=0)
    by_used.grid(alpha=0.3)
    for axes in (accuracy, by_used):
        axes.set(ylabel="% of what vanilla gets right", ylim=(0, 103))
    for axes in (tokens, accuracy):
        _by_share(axes, asked_for)


def draw_paths(asked: Axes, used: Axes, iterations: Sequence[Iteration]) -> None:
    """Fig 2: the budget and the tokens used by iteration of one search; one line per question."""
    questions = [list(one) for _, one in groupby(iterations, key=lambda one: one.question)]
    longest = sorted(questions, key=lambda one: -len(one))[:SHOWN]  # the longest searches show the most
    for one in longest:
        asked.plot([i.iteration for i in one], [i.budget for i in one], ".-", linewidth=1)
        used.plot([i.iteration for i in one], [i.used for i in one], ".-", linewidth=1)
    asked.set(title=f"searched budget ({len(longest)} of {len(questions)} questions)")
    used.set(title="tokens that it cost")
    for axes in (asked, used):
        axes.set_yscale("log", base=2)  # budgets are halved
        axes.yaxis.set_major_formatter("{x:g}")
    ends = [*asked.get_ylim(), *used.get_ylim()]
    for axes in (asked, used):
        axes.set(xlabel="iteration", ylabel="tokens", ylim=(min(ends), max(ends)))
        axes.locator_params(axis="x", integer=True)
        axes.grid(alpha=0.3)


def draw_savings(axes: Axes, savings: Sequence[Saving]) -> None:
    """Fig 3: mean tokens of vanilla CoT and under the searched budget, of questions that both answer right."""
    places = range(len(savings))
    for offset, name, values in (
        (-0.2, "vanilla CoT", [s.vanilla for s in savings]),
        (0.2, "searched budget", [s.searched for s in savings]),
    ):
        axes.bar_label(axes.barh([place + offset for place in places], values, 0.4, label=name), fmt="%.1f", padding=2)
    axes.set_yticks(list(places), [f"{wrapped_label(s.records)}\n{s.questions} questions" for s in savings])
    axes.invert_yaxis()
    axes.set(xlabel="mean output tokens")
    axes.margins(x=0.15)


def wrapped_label(label: str) -> str:
    """A search's name, wrapped to lines that fit a figure."""
    return fill(literal(label), WIDE)


def _by_share(axes: Axes, shares: Sequence[float]) -> None:
    axes.set(xlabel="budget asked for, × vanilla CoT's tokens")
    axes.set_xscale("log", base=2)
    axes.set_xticks(shares, [f"{share:.3g}" for share in shares])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
