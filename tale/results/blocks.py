"""The blocks of a page: sections of texts, tables, figures and examples. A table is also a CSV file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tale.output.tables import Table


@dataclass(frozen=True)
class Figure:
    """A drawing as inline SVG, and as a PNG file. `alt` describes it."""

    name: str
    caption: str
    alt: str
    svg: str
    png: bytes
    kind: str = "figure"


@dataclass(frozen=True)
class Text:
    """A paragraph; a `warning` says what is missing."""

    text: str
    warning: bool = False
    kind: str = "text"


@dataclass(frozen=True)
class Points:
    """A list of short sentences."""

    points: Sequence[str]
    kind: str = "points"


@dataclass(frozen=True)
class Folded:
    """Preformatted text, shown on demand."""

    title: str
    text: str
    kind: str = "folded"


@dataclass(frozen=True)
class Side:
    """One answer of an example, right or wrong, or with its BLEU in the note."""

    method: str
    correct: bool | None
    tokens: int
    note: str
    text: str


@dataclass(frozen=True)
class Example:
    """One question with the answers to it side by side."""

    title: str
    prompt: str
    sides: Sequence[Side]
    opened: bool = False
    kind: str = "example"


Block = Table | Figure | Text | Points | Folded | Example


@dataclass(frozen=True)
class Section:
    """A part of the page, with an anchor."""

    anchor: str
    title: str
    blocks: Sequence[Block]
    parts: Sequence[Section] = field(default_factory=tuple)
