"""Losses step by step, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tale.output.figures import plt, save

STYLES = ({"marker": "o", "ms": 7, "lw": 3, "alpha": 0.5}, {"marker": "x", "ms": 5, "lw": 1, "color": "black"})


def draw_losses(cases: Mapping[str, Mapping[str, Sequence[float]]], file: Path) -> None:
    """Write a PNG with a panel a case; where the sides agree, the thin line runs within the broad one."""
    figure, panels = plt.subplots(1, len(cases), figsize=(5 * len(cases), 4), squeeze=False, layout="constrained")
    for axes, (case, sides) in zip(panels[0], cases.items(), strict=True):
        for (side, losses), style in zip(sides.items(), STYLES, strict=True):
            axes.plot(range(len(losses)), losses, label=side, **style)
        axes.set(title=case, xlabel="step", ylabel="loss")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    save(figure, file)
