"""Rows of figures, on the terminal and as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tale.storage.files import write_atomic
from tale.text import in_lines, printable

WIDTH = 180  # where the output is no terminal
FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\n]")  # how a text begins that a spreadsheet would work out


class Terminal(Console):
    """rich's, which leaves it to the command's handler to end the process where nobody reads the output."""

    def on_broken_pipe(self) -> None:
        """Fail as `print` does."""
        raise BrokenPipeError


def show(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The table on the terminal; the first column is text, the others are figures."""
    table = Table(title=printable(title), title_justify="left")
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left")
    for row in rows:
        table.add_row(*map(printable, row))
    width = None if Terminal().is_terminal else WIDTH
    Terminal(width=width, markup=False, emoji=False).print(table)  # names are no markup


def write_rows(rows: Sequence[Any], folder: Path, name: str, optional: Sequence[str] = ()) -> None:
    """`<name>.csv` and `<name>.json` of one or more dataclasses of one kind; `optional` fields where one has them."""
    unused = {field for field in optional if all(getattr(row, field) is None for row in rows)}
    dicts = [{field: value for field, value in asdict(row).items() if field not in unused} for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, dicts[0].keys())
    writer.writeheader()
    writer.writerows({field: cell(value) for field, value in row.items()} for row in dicts)
    write_atomic(folder / f"{name}.csv", text.getvalue())
    write_atomic(folder / f"{name}.json", json.dumps(dicts, indent=1, ensure_ascii=False) + "\n")


def cell(value: Any) -> Any:
    """A value as it stands in a CSV file: of a text that a spreadsheet would take for a formula, a `'` says that."""
    if not isinstance(value, str):
        return value
    text = in_lines(value)
    return f"'{text}" if FORMULA.match(text) and not _is_number(text) else text


def shown(value: float | None, digits: int = 1, factor: float = 1) -> str:
    """A figure for a table, `factor=100` for a share in percent; an empty cell for None."""
    return "" if value is None else f"{factor * value:.{digits}f}"


def interval(
    value: float | None, low: float | None, high: float | None, digits: int = 1, factor: float = 1, sign: str = ""
) -> str:
    """A figure with its interval, such as "57.0 [52.6, 61.3]", if it has one; `sign="+"` shows both signs."""
    if value is None or low is None or high is None:
        return ""
    centre, *ends = (f"{factor * number:{sign}.{digits}f}" for number in (value, low, high))
    return f"{centre} [{', '.join(ends)}]"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
