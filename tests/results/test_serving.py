"""A proxy's log in a report: the saving against the control group, and each group's figures, by hand."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from tale.config.recipes import load
from tale.results.recipe import ReportRecipe
from tale.results.run import report
from tale.results.serving import saving
from tale.serve.log import RequestRow
from tests.run_factories import serve_run


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def page() -> str:
    return report(load(ReportRecipe, ["runs=[runs/serve]", "output=runs/report"])).read_text()


def test_the_saving_counts_whole_answers_and_their_estimates() -> None:
    """Two of 40 against three of 80: half, and without spread no interval's width."""
    serve_run()
    text = " ".join(page().split())
    assert "Saved: 50.0 % of the output tokens, 95 % interval 50.0 % to 50.0 %" in text
    assert "40.0 tokens an answer instead of 80.0" in text
    assert "requests that passed unchanged: tools" in text
    assert "<td class=text>serving</td><td>7</td><td>0</td><td>1,225</td>" in text.replace("> <", "><")
    assert "requests without a whole answer: client left" in text


def test_each_group_has_its_figures() -> None:
    serve_run()
    page()
    with Path("runs/report/serve-runs-serve-groups.csv").open() as file:
        rows = {row.pop("group"): row for row in csv.DictReader(file)}
    ours = {"requests": "3", "answers": "2", "questions": "2", "tokens": "40", "asked": "36.666666666666664"}
    assert {name: rows["under a budget"][name] for name in ours} == ours
    assert float(rows["under a budget"]["fired"]) == pytest.approx(1 / 3)
    assert {name: row["tokens"] for name, row in rows.items()} == {
        "under a budget": "40",
        "control group": "80",
        "unchanged": "900",
    }


def test_a_question_asked_often_is_drawn_as_one() -> None:
    """100 requests with one question say no more about others than it does: the interval reaches to the other's 10."""
    row = RequestRow(route="chat/completions", outcome="done", status=200, used=50, arm="budget", key="a")
    rows = [row] * 100 + [replace(row, used=10, key="b")] + [replace(row, arm="control", used=100, key="c")] * 2
    share, low, high = saving(rows)
    assert share == pytest.approx(1 - (5010 / 101) / 100)
    assert (low, high) == pytest.approx((0.5, 0.9))


@pytest.mark.parametrize("rows", [[], [RequestRow(outcome="done", status=200, used=5, arm="budget", key="a")]])
def test_without_both_groups_there_is_no_saving(rows: list[RequestRow]) -> None:
    assert saving(rows) == (None, None, None)


def test_an_empty_log_is_said_to_be_empty() -> None:
    (serve_run() / "requests.jsonl").write_text("")
    assert "No chat completions in its log so far." in page()
