"""A table is declared once, by its columns; the terminal, CSV, JSON and the report's page are renderings of it.

A column is declared at the field of a dataclass whose values it shows, `tokens: Annotated[float, Column("tokens",
number)]`. A figure with an interval is one column to a reader and three in CSV and JSON, where its ends stand beside it
as `<name>_low` and `<name>_high`.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_type_hints

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid

from tale.output.formats import yes_or_no
from tale.storage.files import write_atomic
from tale.text import in_lines, printable

WIDTH = 180  # where the output is no terminal
HEADING = 12  # characters of a heading that are not broken
FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\n]")  # how a text begins that a spreadsheet would work out

Align = Literal["left", "right"]
Row = Mapping[str, Any]


class Interval(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Column:
    """A column's heading, how a value is shown, and the heading that it shares with its neighbours.

    An empty cell (None, or a value equal to `blank`) shows `empty`. A column without any text is left out, in a run's
    files only an `optional` one, where all rows have None. `ends` is how the names of an interval's ends begin, where
    they do not begin with the column's name.
    """

    heading: str
    show: Callable[[Any], str] = str
    group: str = ""
    ends: str = ""
    empty: str = ""
    blank: Any = None
    optional: bool = False

    @property
    def align(self) -> Align:
        """Texts stand at the left, numbers at the right."""
        return "left" if self.show in (str, yes_or_no) else "right"

    def fields(self, name: str) -> tuple[str, str, str]:
        """Where a row of the column with this name has the value and the ends of its interval."""
        return name, f"{self.ends or name}_low", f"{self.ends or name}_high"

    def text(self, name: str, row: Row) -> str:
        """A row's cell, such as "57.0 [52.6, 61.3]"."""
        value, *ends = map(row.get, self.fields(name))
        if value is None or value == self.blank:
            return self.empty
        return self.show(value) + (f" [{', '.join(map(self.show, ends))}]" if None not in ends else "")


@dataclass(frozen=True)
class Table:
    """Rows of plain values by the columns' names. The first column says what a row is about."""

    name: str
    caption: str
    columns: Mapping[str, Column]
    rows: Sequence[Row]
    kind: str = "table"

    @property
    def sides(self) -> list[Align]:
        """Every column's alignment."""
        return ["left", *(column.align for column in list(self.columns.values())[1:])]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Shared headings with how many columns each spans; empty where there are none."""
        names = [column.group for column in self.columns.values()]
        return [(group, len(list(columns))) for group, columns in groupby(names)] if any(names) else []

    @property
    def cells(self) -> list[list[str]]:
        """Every cell as text."""
        return [[column.text(name, row) for name, column in self.columns.items()] for row in self.rows]

    def show(self) -> None:
        """Print the table on the terminal; columns that do not fit stand below, beside the first one again."""
        terminal = Terminal(markup=False, emoji=False)  # names are no markup
        terminal.width = terminal.width if terminal.is_terminal else WIDTH
        above = [f"{column.group}\n" if self.groups else "" for column in self.columns.values()]
        headings = [group + column.heading for group, column in zip(above, self.columns.values(), strict=True)]
        rows = [list(map(printable, row)) for row in self.cells]
        widths = list(map(_width, headings, zip(*rows, strict=True)))
        widths[0] = min(widths[0], terminal.width // 3)
        for number, part in enumerate(_parts(widths, terminal.width)):
            grid = Grid(title=None if number else printable(self.caption), title_justify="left")
            for i in part:
                grid.add_column(headings[i], justify=self.sides[i], width=widths[i], overflow="fold")
            for row in rows:
                grid.add_row(*(row[i] for i in part))
            terminal.print(grid)

    def csv(self) -> str:
        """All digits of the values."""
        fields = [field for name, column in self.columns.items() for field in column.fields(name)]
        used = [field for field in fields if field in self.columns or any(field in row for row in self.rows)]
        return _csv([{field: row.get(field) for field in used} for row in self.rows])


def columns_of(kind: type, *names: str) -> dict[str, Column]:
    """The columns that a dataclass declares at its fields: those named, in this order, or all."""
    hints = get_type_hints(kind, include_extras=True)
    found = {name: of for name, hint in hints.items() for of in getattr(hint, "__metadata__", ()) if type(of) is Column}
    return {name: found[name] for name in names or found}


def table_of(name: str, caption: str, columns: Mapping[str, Column], rows: Sequence[Any]) -> Table:
    """Dataclasses or mappings as a table; of the columns those that hold something."""
    flat = [_flat(row if isinstance(row, Mapping) else vars(row)) for row in rows]
    used = {name: column for name, column in columns.items() if any(column.text(name, row) for row in flat)}
    return Table(name, caption, used, flat)


def files_of(*names: str) -> list[str]:
    """The files that `write_rows` writes."""
    return [f"{name}.{kind}" for name in names for kind in ("csv", "json")]


def write_rows(rows: Sequence[Any], folder: Path, name: str) -> None:
    """`<name>.csv` and `<name>.json`: every field of one or more dataclasses of one kind."""
    optional = [field for field, column in columns_of(type(rows[0])).items() if column.optional]
    unused = {field for field in optional if all(getattr(row, field) is None for row in rows)}
    values = [{field: value for field, value in vars(row).items() if field not in unused} for row in rows]
    write_atomic(folder / f"{name}.csv", _csv(values))
    write_atomic(folder / f"{name}.json", json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def cell(value: Any) -> Any:
    """A value as it stands in a CSV file: of a text that a spreadsheet would take for a formula, a `'` says that."""
    if not isinstance(value, str):
        return value
    text = in_lines(value)
    return f"'{text}" if FORMULA.match(text) and not _is_number(text) else text


class Terminal(Console):
    """rich's, which leaves it to the command's handler to end the process where nobody reads the output."""

    def on_broken_pipe(self) -> None:
        """Fail as `print` does."""
        raise BrokenPipeError


def _width(heading: str, cells: Sequence[str]) -> int:
    """Characters of a column on the terminal: no cell and no word of its heading is broken."""
    lines = [line[:HEADING] for line in heading.split("\n")]
    return max(map(cell_len, (*lines, *heading.split(), *cells)))


def _parts(widths: Sequence[int], most: int) -> list[list[int]]:
    """The columns, as many in a part as a terminal is wide; the first one is in each."""
    parts = [[0]]
    for i in range(1, len(widths)):
        if len(parts[-1]) > 1 and sum(widths[j] + 3 for j in (*parts[-1], i)) >= most:
            parts.append([0])
        parts[-1].append(i)
    return parts


def _flat(row: Row) -> Row:
    """The row with an interval's ends beside its value."""
    ends = {f"{k}_{end}": getattr(v, end) for k, v in row.items() if isinstance(v, Interval) for end in ("low", "high")}
    return {name: value.value if isinstance(value, Interval) else value for name, value in row.items()} | ends


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys())
    writer.writeheader()
    writer.writerows({field: cell(value) for field, value in row.items()} for row in rows)
    return text.getvalue()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
