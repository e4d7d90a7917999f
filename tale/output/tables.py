"""Tables: declared once, by their columns, and rendered on the terminal, as CSV, as JSON and on the report's page.

A column is declared at the dataclass field that it shows, `tokens: Annotated[float, Column("tokens", number)]`. A
figure with an interval is one column, but three in CSV and JSON, with `<name>_low` and `<name>_high`.
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
from tale.text import printable, printable_lines

WIDTH = 180  # if the output is not a terminal
HEADING = 12  # characters of a heading that are not wrapped
FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\n]")  # the beginning of a text that a spreadsheet would evaluate

Align = Literal["left", "right"]
Row = Mapping[str, Any]


class Interval(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Column:
    """A column's heading, the format of its values, and the heading of its group.

    An empty cell (None, or a value equal to `blank`) shows `empty`. A column without any text is left out; in a run's
    files only an `optional` one is, if all rows have None. `ends` is the prefix of the names of an interval's ends, if
    it is not the column's name.
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
        """Texts are aligned left, numbers right."""
        return "left" if self.show in (str, yes_or_no) else "right"

    def fields(self, name: str) -> tuple[str, str, str]:
        """The names of a row's value and of its interval's ends, for the column with this name."""
        return name, f"{self.ends or name}_low", f"{self.ends or name}_high"

    def text(self, name: str, row: Row) -> str:
        """A row's cell, such as "57.0 [52.6, 61.3]"."""
        value, *ends = map(row.get, self.fields(name))
        if value is None or value == self.blank:
            return self.empty
        return self.show(value) + (f" [{', '.join(map(self.show, ends))}]" if None not in ends else "")


@dataclass(frozen=True)
class Table:
    """Rows of plain values by the columns' names. The first column names the row."""

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
        """Group headings with the number of columns that each spans; empty if there are none."""
        names = [column.group for column in self.columns.values()]
        return [(group, len(list(columns))) for group, columns in groupby(names)] if any(names) else []

    @property
    def cells(self) -> list[list[str]]:
        """Every cell as text."""
        return [[column.text(name, row) for name, column in self.columns.items()] for row in self.rows]

    def show(self) -> None:
        """Print the table on the terminal; columns that do not fit follow below, with the first column repeated."""
        terminal = Terminal(markup=False, emoji=False)  # names are not markup
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
        """The table as CSV, with all digits of the values."""
        fields = [field for name, column in self.columns.items() for field in column.fields(name)]
        used = [field for field in fields if field in self.columns or any(field in row for row in self.rows)]
        return _csv([{field: row.get(field) for field in used} for row in self.rows])


def columns_of(kind: type, *names: str) -> dict[str, Column]:
    """The columns declared at the fields of a dataclass: those named, in this order, or all."""
    hints = get_type_hints(kind, include_extras=True)
    found = {name: of for name, hint in hints.items() for of in getattr(hint, "__metadata__", ()) if type(of) is Column}
    return {name: found[name] for name in names or found}


def table_of(name: str, caption: str, columns: Mapping[str, Column], rows: Sequence[Any]) -> Table:
    """A table of dataclasses or mappings, without empty columns."""
    flat = [_flat(row if isinstance(row, Mapping) else vars(row)) for row in rows]
    used = {name: column for name, column in columns.items() if any(column.text(name, row) for row in flat)}
    return Table(name, caption, used, flat)


def files_of(*names: str) -> list[str]:
    """The names of the files that `write_rows` writes."""
    return [f"{name}.{kind}" for name in names for kind in ("csv", "json")]


def write_rows(rows: Sequence[Any], folder: Path, name: str) -> None:
    """Write `<name>.csv` and `<name>.json` with all fields of one or more dataclasses of the same type."""
    optional = [field for field, column in columns_of(type(rows[0])).items() if column.optional]
    unused = {field for field in optional if all(getattr(row, field) is None for row in rows)}
    values = [{field: value for field, value in vars(row).items() if field not in unused} for row in rows]
    write_atomic(folder / f"{name}.csv", _csv(values))
    write_atomic(folder / f"{name}.json", json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def cell(value: Any) -> Any:
    """A value for a CSV file: a text that a spreadsheet would evaluate as a formula gets a leading `'`."""
    if not isinstance(value, str):
        return value
    text = printable_lines(value)
    return f"'{text}" if FORMULA.match(text) and not _is_number(text) else text


class Terminal(Console):
    """rich's console, but a broken pipe is left to the command's handler."""

    def on_broken_pipe(self) -> None:
        """Fail as `print` does."""
        raise BrokenPipeError


def _width(heading: str, cells: Sequence[str]) -> int:
    """The width of a column on the terminal, in which no cell and no word of its heading is wrapped."""
    lines = [line[:HEADING] for line in heading.split("\n")]
    return max(map(cell_len, (*lines, *heading.split(), *cells)))


def _parts(widths: Sequence[int], most: int) -> list[list[int]]:
    """Indices of the columns, in parts that fit the terminal's width; the first column is in each part."""
    parts = [[0]]
    for i in range(1, len(widths)):
        if len(parts[-1]) > 1 and sum(widths[j] + 3 for j in (*parts[-1], i)) >= most:
            parts.append([0])
        parts[-1].append(i)
    return parts


def _flat(row: Row) -> Row:
    """The row with separate entries for an interval's ends."""
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
