"""Figures as PNG files."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from tale.storage.files import write_atomic
from tale.text import SHOWN, printable

matplotlib.rcParams["text.parse_math"] = False  # a name with dollar signs is not a formula


def legend(figure: Figure, columns: int = 2) -> None:
    """Name what is drawn, once for all axes, below them, where a phone has room."""
    named = {name: of for axes in figure.axes for of, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named, loc="outside lower center", frameon=False, ncols=columns)


def save(figure: Figure, file: Path) -> None:
    """Write a figure as PNG, atomically, and close it."""
    image = io.BytesIO()
    figure.savefig(image, dpi=150)
    plt.close(figure)
    write_atomic(file, image.getvalue())


def literal(name: str, most: int = SHOWN) -> str:
    """A name for a figure: on one line, shortened, and not beginning with `_`, which legends leave out."""
    shown = printable(name, most)
    return f" {shown}" if shown.startswith("_") else shown
