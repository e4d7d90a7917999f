"""The blocks of a page: sections of texts, tables, figures, examples and choices. A table is also a CSV file."""

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


@dataclass(frozen=True)
class Node:
    """One call, and how many levels it is indented below the first."""

    title: str
    depth: int
    text: str


@dataclass(frozen=True)
class Tree:
    """The calls for one question, each after the one that it continues or judges."""

    title: str
    note: str
    nodes: Sequence[Node]
    correct: bool | None


@dataclass(frozen=True)
class Choice:
    """One entry of a picker."""

    label: str
    prompt: str
    trees: Sequence[Tree]


@dataclass(frozen=True)
class Picker:
    """A list of choices, of which the reader sees one."""

    label: str
    choices: Sequence[Choice]
    kind: str = "picker"


Block = Table | Figure | Text | Points | Folded | Example | Picker


@dataclass(frozen=True)
class Section:
    """A part of the page, with an anchor."""

    anchor: str
    title: str
    blocks: Sequence[Block]
    parts: Sequence[Section] = field(default_factory=tuple)
