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

matplotlib.rcParams["text.parse_math"] = False  # a name with dollars in it is no formula


def save(figure: Figure, file: Path) -> None:
    """Write a figure as PNG, whole or not at all, and let it go."""
    image = io.BytesIO()
    figure.savefig(image, dpi=150)
    plt.close(figure)
    write_atomic(file, image.getvalue())


def literal(name: str, most: int = SHOWN) -> str:
    """A name as a figure shows it: on one line, not too long. What begins with `_` a legend would leave out."""
    shown = printable(name, most)
    return f" {shown}" if shown.startswith("_") else shown
