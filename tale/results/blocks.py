"""What a page is made of: sections of texts, tables, figures and examples. A table is also a CSV file."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

from tale.output.tables import cell


class Interval(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Column:
    """A column's name in CSV, its heading, how a value is shown, and the heading it shares with its neighbours."""

    name: str
    heading: str
    show: Callable[[Any], str] = str
    group: str = ""

    @property
    def is_text(self) -> bool:
        """Whether it is read rather than compared: texts stand at the left, numbers at the right."""
        return self.show is str


@dataclass(frozen=True)
class Table:
    """Rows of plain values; None is an empty cell. The first column says what a row is about."""

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    kind: str = "table"

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Shared headings with how many columns each spans; empty where there are none."""
        spans = [(group, len(list(columns))) for group, columns in groupby(column.group for column in self.columns)]
        return spans if any(group for group, _ in spans) else []

    @property
    def shown(self) -> list[list[str]]:
        """Every cell as text."""
        return [
            ["" if value is None else column.show(value) for column, value in zip(self.columns, row, strict=True)]
            for row in self.rows
        ]

    def csv(self) -> str:
        """All digits of the values; an interval is three columns."""
        width = [any(isinstance(row[i], Interval) for row in self.rows) for i in range(len(self.columns))]
        text = io.StringIO()
        writer = csv.writer(text)
        names = [[c.name, f"{c.name}_low", f"{c.name}_high"] if wide else [c.name] for c, wide in self._wide(width)]
        writer.writerow([name for group in names for name in group])
        for row in self.rows:
            cells = [_cells(cell(value), wide) for value, wide in zip(row, width, strict=True)]
            writer.writerow([cell for group in cells for cell in group])
        return text.getvalue()

    def _wide(self, width: Sequence[bool]) -> list[tuple[Column, bool]]:
        return list(zip(self.columns, width, strict=True))


@dataclass(frozen=True)
class Figure:
    """A drawing as inline SVG, and as a PNG file. `alt` says what is to be seen in it."""

    name: str
    caption: str
    alt: str
    svg: str
    png: bytes
    kind: str = "figure"


@dataclass(frozen=True)
class Text:
    """A paragraph; as `warning`, one that says what is missing."""

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
    """Text as it stands, shown on demand."""

    title: str
    text: str
    kind: str = "folded"


@dataclass(frozen=True)
class Side:
    """One answer of an example; it is right or wrong, or its note says how good it is."""

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


def table_of(name: str, caption: str, columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> Table:
    """Rows by the columns' names; of the columns those that hold something."""
    used = [column for column in columns if any(row.get(column.name) is not None for row in rows)]
    return Table(name, caption, used, [[row.get(column.name) for column in used] for row in rows])


def cells_of(row: Any, *intervals: str) -> dict[str, Any]:
    """A dataclass's values by name; of `intervals` the value together with its `_low` and `_high`."""
    return {**vars(row), **{name: interval_of(row, name) for name in intervals}}


def interval_of(row: Any, name: str) -> Interval | None:
    """A value with the ends that stand beside it; None where there is none."""
    value, low, high = (getattr(row, f"{name}{end}") for end in ("", "_low", "_high"))
    return None if value is None else Interval(value, low, high)


def percent(value: float | Interval) -> str:
    """57.0, or 57.0 [52.6, 61.3]."""
    return with_interval(value, lambda share: f"{100 * share:.1f}")


def points(value: float | Interval) -> str:
    """+2.0, or +2.0 [−1.4, +5.4]: a difference of shares in percentage points."""
    return with_interval(value, lambda share: f"{100 * share:+.1f}".replace("-", "−"))


def number(value: float | Interval) -> str:
    """160.3, or 160.3 [150.0, 170.6]."""
    return with_interval(value, lambda of: f"{of:,.1f}".replace("-", "−"))


def three_digits(value: float | Interval) -> str:
    """0.267, or 0.267 [0.240, 0.290]."""
    return with_interval(value, "{:.3f}".format)


def signed(value: float | Interval) -> str:
    """−0.027, or −0.027 [−0.040, −0.010]."""
    return with_interval(value, lambda of: f"{of:+.3f}".replace("-", "−"))


def two_digits(value: float) -> str:
    """0.13."""
    return f"{value:,.2f}"


def whole(value: float | Interval) -> str:
    """7,473; what is infinite is `never`."""
    return with_interval(value, lambda of: "never" if math.isinf(of) else f"{of:,.0f}")


def dollars(value: float | Interval) -> str:
    """$0.0123."""
    return with_interval(value, lambda of: f"${of:,.4f}" if of < 1 else f"${of:,.2f}")


def duration(seconds: float) -> str:
    """35.2 s, 11 min 20 s, 5 h 54 min."""
    if seconds < 60:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def with_interval(value: float | Interval, show: Callable[[float], str]) -> str:
    """The value alone, or with its interval in brackets."""
    if not isinstance(value, Interval):
        return show(value)
    return f"{show(value.value)} [{show(value.low)}, {show(value.high)}]"


def _cells(value: Any, wide: bool) -> list[Any]:
    if not wide:
        return [value]
    return list(value) if isinstance(value, Interval) else [value, None, None]
