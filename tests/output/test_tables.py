"""A table is declared once: the terminal, CSV, JSON and the page show the same values of the same rows."""

from __future__ import annotations

import ast
import csv
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import ModuleType, NoneType
from typing import Any, get_args, get_type_hints

import pytest

import tale
from tale.analysis.elasticity import BudgetLevel, ModelSummary
from tale.analysis.estimators.score import Score
from tale.analysis.paths import Saving
from tale.evaluation.anytime import AnytimeRow
from tale.evaluation.strategies import StrategyRow
from tale.evaluation.summary import Row
from tale.output import formats, tables
from tale.output.tables import Column, columns_of, table_of, write_rows
from tale.results import analysis, costs, elasticity, kept, left_out, run, search, training
from tale.results.blocks import Section
from tale.results.ledger import Spent
from tale.results.page import write_page
from tale.results.serving import Group
from tale.search.confirm import ConfirmationSummary
from tale.wordings import work
from tale.wordings.regions import Best, Cell, Curve

MODULES = (analysis, costs, elasticity, kept, left_out, run, search, training, work)
DECLARED = (Best, Cell, Curve, ConfirmationSummary, ModelSummary, Row, Saving, Score, Spent, BudgetLevel, AnytimeRow)
DECLARED += (StrategyRow, Group)


def made(kind: type, full: bool) -> Any:
    """A row in which every field has a value of its own; not `full`, every field is None that may be."""
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for i, name in enumerate((field.name for field in fields(kind)), 1):
        types = {hints[name], *get_args(hints[name])}
        number = i + (not full)
        given = (
            True if bool in types else number if int in types else number / 100 if float in types else f"{name} {full}"
        )
        values[name] = given if full or NoneType not in types else None
    return kind(**values)


def by_hand(columns: Mapping[str, Column], first: int) -> dict[str, Any]:
    """A row of columns that no dataclass declares."""
    numbers = {name: i for i, (name, column) in enumerate(columns.items(), first) if column.align == "right"}
    return {name: numbers.get(name, f"{name} {first}") for name in columns}


def on_terminal(out: str) -> dict[str, list[str]]:
    """Cells by a row's first one; a table too wide for one part has its further columns in others."""
    rows: dict[str, list[str]] = {}
    for line in out.splitlines():
        if line.startswith("│"):
            first, *cells = (cell.strip() for cell in line.strip("│").split("│"))
            rows.setdefault(first, [first]).extend(cells)
    return rows


def on_page(page: Path) -> list[list[str]]:
    _, *rows = re.findall(r"<tr>(<th scope=\"(?:col|row)\".*?)</tr>", page.read_text(encoding="utf-8"))
    return [[html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in rows]


def says(shown: str, values: list[Any], empty: str) -> bool:
    """Whether a cell shows a text, a verdict, or these figures, to its last digit: as they are or in percent."""
    if values[0] is None:
        return shown == empty
    if isinstance(values[0], str | bool):
        return shown == {True: "yes"}.get(values[0], values[0])
    found = [figure.replace("−", "-").replace(",", "") for figure in re.findall(r"[−+]?[\d,]*\.?\d+", shown)]
    exact = [0.5 * 10 ** -len(figure.partition(".")[2]) + 1e-9 for figure in found]
    return len(found) == len(values) and any(
        all(abs(float(f) - factor * v) <= e for f, v, e in zip(found, values, exact, strict=True))
        for factor in (1, 100)
    )


def texts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The rows as a CSV file has them."""
    return [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]


def read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def compared(columns: Mapping[str, Column], rows: Sequence[Any], folder: Path, out: pytest.CaptureFixture[str]) -> None:
    """The table of these rows on the page, in the CSV file beside it and on the terminal."""
    table = table_of("table", "caption", columns, rows)
    page = on_page(write_page("title", [Section("anchor", "title", [table])], folder))
    table.show()
    assert list(on_terminal(out.readouterr().out).values()) == page
    values = [row if isinstance(row, dict) else vars(row) for row in rows]
    beside = read(folder / "table.csv")
    assert beside == [{name: row[name] for name in beside[0]} for row in texts(values)]
    for shown, row in zip(page, values, strict=True):
        for cell, (name, column) in zip(shown, columns.items(), strict=True):
            figures = [row[field] for field in column.fields(name) if field in row]
            assert len(figures) in (1, 3)
            assert says(cell, figures, column.empty), (name, cell, figures)


@pytest.mark.parametrize("kind", DECLARED, ids=lambda kind: kind.__name__)
def test_terminal_csv_json_and_page_show_the_same_values(
    kind: type, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [made(kind, True), made(kind, False)]
    write_rows(rows, tmp_path, "rows")
    assert json.loads((tmp_path / "rows.json").read_text()) == [vars(row) for row in rows]
    assert read(tmp_path / "rows.csv") == texts([vars(row) for row in rows])
    compared(columns_of(kind), rows, tmp_path, capsys)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_tables_of_no_dataclass_are_the_same_everywhere(
    module: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [value for value in vars(module).values() if isinstance(value, dict)]
    found = [columns for columns in found if columns and all(isinstance(column, Column) for column in columns.values())]
    assert found
    for columns in found:
        compared(columns, [by_hand(columns, 1), by_hand(columns, 20)], tmp_path, capsys)


def test_every_declared_table_is_compared() -> None:
    classes = [node for f in Path(tale.__file__).parent.rglob("*.py") for node in ast.walk(ast.parse(f.read_text()))]
    declared = {
        node.name
        for node in classes
        if isinstance(node, ast.ClassDef)
        for line in node.body
        if isinstance(line, ast.AnnAssign) and "Column(" in ast.unparse(line.annotation)
    }
    assert declared == {kind.__name__ for kind in DECLARED}


def test_columns_that_do_not_fit_stand_below_beside_the_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tables, "WIDTH", 40)
    columns = {"method": Column("method")} | {f"c{i}": Column(f"a heading of {i}") for i in range(5)}
    table_of("", "a caption", columns, [{"method": "m", **{f"c{i}": "x" * 14 for i in range(5)}}]).show()
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 40
    assert [line.split() for line in out.splitlines() if line.startswith("│")] == [
        ["│", "m", "│", "x" * 14, "│"] for _ in range(5)
    ]
    assert out.count("a caption") == 1


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (formats.percent, 0.5704, "57.0"),
        (formats.points, -0.014, "−1.4"),
        (formats.points, 0.02, "+2.0"),
        (formats.number, 1160.25, "1,160.2"),
        (formats.two_digits, -0.4, "−0.40"),
        (formats.signed, -0.0274, "−0.027"),
        (formats.rounded, 0.03125, "0.03125"),
        (formats.p_value, 0.00012345, "0.00012"),
        (formats.whole, 7473.0, "7,473"),
        (formats.whole, float("inf"), "never"),
        (formats.dollars, 0.01234, "$0.0123"),
        (formats.dollars, 1234.5, "$1,234.50"),
    ],
)
def test_a_number_has_one_form(write: formats.Format, value: float, text: str) -> None:
    assert write(value) == text
