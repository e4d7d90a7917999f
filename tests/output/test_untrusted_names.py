"""Names are data for every sink: the terminal, CSV, plots, the page, files."""

from __future__ import annotations

import ast
import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

import tale
from tale.output.formats import number
from tale.output.tables import Column, Table, cell, table_of, write_rows


def test_a_table_on_the_terminal_takes_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"method": "TALE [/PT]"}, {"method": "[red]\a\x9b31m:smile:\nnext"}]
    table_of("", "TALE [/PT] \x1b[2J:smile:", {"method": Column("method")}, rows).show()
    out = capsys.readouterr().out
    assert r"TALE [/PT] \x1b[2J:smile:" in out
    assert "│ TALE [/PT] " in out
    assert r"│ [red]\x07\x9b31m:smile:\nnext " in out


def test_only_what_makes_texts_printable_prints() -> None:
    """`say` is the one way to the terminal; the others print texts of their own, or make them printable themselves."""
    package = Path(tale.__file__).parent
    printing = {
        file.relative_to(package).as_posix()
        for file in package.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert printing == {"evaluation/ask.py", "cli.py", "runs/devices.py", "text.py"}


@dataclass
class Row:
    name: str
    value: float


CELLS = {
    "=cmd|' /C calc'!A0": "'=cmd|' /C calc'!A0",
    "+1 and 2": "'+1 and 2",
    "-7 pens": "'-7 pens",
    "@SUM(A1)": "'@SUM(A1)",
    "\t=1": "'\t=1",
    "\tx": "'\tx",
    " =1": "' =1",
    "＝1": "'＝1",
    "\r=1": r"\r=1",
    "-7": "-7",
    "+1.5e3": "+1.5e3",
    "a, \"b\"\nc": "a, \"b\"\nc",
    "\0\x1b[2J": r"\x00\x1b[2J",
    "": "",
}  # fmt: skip


@pytest.mark.parametrize("text", CELLS)
def test_no_text_is_a_formula_in_csv_and_numbers_stay_numbers(text: str, tmp_path: Path) -> None:
    write_rows([Row(text, -0.5)], tmp_path, "rows")
    columns = {"name": Column("name"), "value": Column("value", number)}
    table = Table("t", "", columns, [{"name": text, "value": -0.5, "value_low": -1, "value_high": 2}])
    ours, page = (
        list(csv.reader(io.StringIO(written, newline="")))
        for written in ((tmp_path / "rows.csv").read_bytes().decode(), table.csv())
    )
    assert ours[1] == [CELLS[text], "-0.5"]
    assert page[1] == [CELLS[text], "-0.5", "-1", "2"]
    assert json.loads((tmp_path / "rows.json").read_text()) == [{"name": text, "value": -0.5}]
    assert (cell(-3), cell(None)) == (-3, None)
