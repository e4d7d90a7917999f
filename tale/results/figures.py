"""Drawing a figure once, as inline SVG that takes the page's colours and font, and as PNG."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

from cycler import cycler
from matplotlib import rc_context
from matplotlib.figure import Figure as Canvas
from matplotlib.typing import RcKeyType

from tale.results.blocks import Figure

INK = "#1a1b1c"  # stands for the colour of the page's text, light or dark
COLOURS = ["#3f76c4", "#d9752b", "#2f9a5d", "#c8414b", "#8f6bb8", "#9a7352", "#cf74b4", "#7d8794", "#a3a12f", "#2fa7b5"]
STYLE: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tale",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


def figure(
    name: str, caption: str, alt: str, draw: Callable[[Canvas], None], size: tuple[float, float] = (4.6, 3.3)
) -> Figure:
    """A figure `size` inches wide and high: narrow, so that its text can be read on a phone."""
    with rc_context(STYLE):
        canvas = Canvas(figsize=size, layout="constrained")
        draw(canvas)
        svg, png = io.StringIO(), io.BytesIO()
        canvas.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        canvas.set_layout_engine("none")  # it is laid out already
        canvas.savefig(png, format="png", dpi=200, facecolor="white")
    return Figure(name, caption, alt, _inline(svg.getvalue(), name), png.getvalue())


def _inline(svg: str, name: str) -> str:
    """The element alone, its ids the figure's own, as wide as the page allows, text in the page's font and colour."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'width="[^"]*" height="[^"]*"', "", svg, count=1)  # the view box stays, and with it the proportions
    return re.sub(r"<[^<>]*>", lambda tag: _own(tag.group(), name), svg)  # what stands between tags may be anything


def _own(tag: str, name: str) -> str:
    tag = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{name}-", tag)
    return re.sub(r"font-family: [^;]*;", "font-family: inherit;", tag).replace(INK, "currentColor")
