"""The elasticity curve, the searches' paths (Fig 2) and what they saved (Fig 3), as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from matplotlib.axes import Axes

from tale.analysis.elasticity import Step
from tale.analysis.paths import Iteration, Saving
from tale.evaluation.plot import plt, save

SHOWN = 12  # questions a search in Fig 2: more lines hide each other


def plot_elasticity(steps: Sequence[Step], file: Path) -> None:
    """Tokens used and accuracy against the budget asked for, both as shares of vanilla's tokens; a line a search."""
    figure, (tokens, accuracy) = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
    for label, rows in groupby(steps, key=lambda step: step.records):
        asked = [row for row in rows if row.share is not None]
        shares = [row.share for row in asked]
        (line,) = tokens.plot(shares, [row.used_share for row in asked], "o-", label=label)
        scale = [row.used_share / row.used for row in asked]
        low, high = (
            [getattr(r, end) * s for r, s in zip(asked, scale, strict=True)] for end in ("used_low", "used_high")
        )
        tokens.fill_between(shares, low, high, alpha=0.15, color=line.get_color())
        accuracy.plot(shares, [100 * row.accuracy for row in asked], "o-", color=line.get_color())
        ends = ([100 * getattr(row, f"accuracy_{end}") for row in asked] for end in ("low", "high"))
        accuracy.fill_between(shares, *ends, alpha=0.15, color=line.get_color())
    asked_for = sorted({step.share for step in steps if step.share is not None})
    tokens.plot(asked_for, asked_for, ":", color="gray", label="as asked")
    tokens.axhline(1, color="gray", linewidth=0.8)
    tokens.set(title="tokens used", ylabel="share of vanilla CoT's tokens")
    tokens.set_ylim(bottom=0)
    accuracy.set(title="answered right", ylabel="% of the questions that vanilla gets right")
    accuracy.set_ylim(0, 103)
    for axes in (tokens, accuracy):
        _by_share(axes, asked_for)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    save(figure, file)


def plot_paths(iterations: Sequence[Iteration], file: Path) -> None:
    """Fig 2: over a search's iterations, the budget asked for and the tokens it really cost; a line a question."""
    searches = [(label, list(rows)) for label, rows in groupby(iterations, key=lambda one: one.records)]
    figure, grid = plt.subplots(
        len(searches), 2, figsize=(10, 0.8 + 3.4 * len(searches)), layout="constrained", squeeze=False
    )
    for (label, rows), (asked, used) in zip(searches, grid, strict=True):
        questions = [list(one) for _, one in groupby(rows, key=lambda one: one.question)]
        longest = sorted(questions, key=lambda one: -len(one))[:SHOWN]  # the longest searches show the most
        for one in longest:
            asked.plot([i.iteration for i in one], [i.budget for i in one], ".-", linewidth=1)
            used.plot([i.iteration for i in one], [i.used for i in one], ".-", linewidth=1)
        note = f"{len(longest)} of {len(questions)} questions"
        asked.set(title=f"{label}: searched budget ({note})", ylabel="tokens", yscale="log")
        used.set(title="tokens that it cost", ylabel="tokens", yscale="log", ylim=asked.get_ylim())
        for axes in (asked, used):
            axes.set(xlabel="iteration")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.3)
    save(figure, file)


def plot_savings(savings: Sequence[Saving], file: Path) -> None:
    """Fig 3: mean tokens of vanilla CoT and under the searched budget, of questions that both answer right."""
    figure, axes = plt.subplots(figsize=(3.4 + 1.8 * len(savings), 4.5), layout="constrained")
    places = range(len(savings))
    for offset, name, values in (
        (-0.2, "vanilla CoT", [s.vanilla for s in savings]),
        (0.2, "searched budget", [s.searched for s in savings]),
    ):
        axes.bar_label(axes.bar([place + offset for place in places], values, 0.4, label=name), fmt="%.1f", padding=2)
    axes.set_xticks(list(places), [f"{s.records}\n{s.questions} questions" for s in savings])
    axes.set(ylabel="mean output tokens", title="vanilla CoT against the searched budget")
    axes.margins(y=0.12)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    save(figure, file)


def _by_share(axes: Axes, shares: Sequence[float]) -> None:
    axes.set(xlabel="budget asked for, share of vanilla CoT's tokens")
    axes.set_xscale("log", base=2)
    axes.set_xticks(shares, [f"{share:.3g}" for share in shares])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
