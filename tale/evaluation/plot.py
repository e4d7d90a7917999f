"""Plot of accuracy or another metric against output tokens, one point per method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

from matplotlib.axes import Axes

from tale.evaluation.summary import RESULTS, Row
from tale.output.figures import literal, plt, save
from tale.text import SHOWN


def plot(rows: Sequence[Row], title: str, file: Path) -> None:
    """Write a PNG of `draw`."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    draw(axes, rows)
    axes.set_title(fill(literal(title, 2 * SHOWN), SHOWN))
    figure.legend(loc="outside right upper", frameon=False)
    save(figure, file)


def draw(axes: Axes, rows: Sequence[Row], tokens: Mapping[str, tuple[float, float]] | None = None) -> None:
    """One point per method, with 95 % intervals (`tokens`: by method), and a line along the Pareto front."""
    factor = 100 if rows[0].metric == "accuracy" else 1
    for row in rows:
        value, worst, best = (factor * end for end in row.score)
        low, high = (tokens or {}).get(row.method, (row.output_tokens, row.output_tokens))
        axes.errorbar(
            row.output_tokens,
            value,
            xerr=[[row.output_tokens - low], [high - row.output_tokens]],
            yerr=[[value - worst], [best - value]],
            fmt="o",
            capsize=3,
            label=literal(row.method),
        )
    joined = pareto_front(rows)
    if len(joined) > 1:
        line = [r.output_tokens for r in joined], [factor * r.score[0] for r in joined]
        axes.plot(*line, "--", lw=1, color="gray", zorder=1)
    axes.set(xlabel="mean output tokens a question, the estimator's included", ylabel=RESULTS[rows[0].metric].heading)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)


def pareto_front(rows: Sequence[Row]) -> list[Row]:
    """The Pareto front, cheapest first: methods that no other one beats with as few tokens or fewer."""
    best: list[Row] = []
    for row in sorted(rows, key=lambda r: (r.output_tokens, -r.score[0])):
        if not best or row.score[0] > best[-1].score[0]:
            best.append(row)
    return best
