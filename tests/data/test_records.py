"""What a search writes is read back as it was; anything else is refused by file and line."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tale.data.question import Question
from tale.data.records import Answer, Attempt, Confirmation, Record, read_records, write_records
from tale.errors import UserError
from tale.inference import Sampling

LONG = Answer("Because 3 + 4 = 7 …\u2028 [[7]]", 90, "stop", True, "7", "brackets")
SHORT = Answer("[[7]]", 3, "stop", True, "7", "brackets", ids=(27, 7, 2))
BAD = Answer("eight", 2, "stop", False, None, "none")
CUT = Answer("[[7]] and so on", 5, "length", True, "7", "brackets")
QUESTION = Question("q/0", "三加四等于几？", "A", "choice", "zh", ("7", "8"))
FOUND = Record(
    QUESTION,
    Attempt(None, (LONG,), False),
    (Attempt(45, (BAD, SHORT), True), Attempt(22, (CUT,), False)),
    45,
    SHORT,
    None,
    Sampling(512, 0.1, 7),
    "m",
    "In {budget} tokens:",
    "0123456789abcdef",
    again=Confirmation(3, 8, 0.7),
)
MISSED = Record(
    Question("q/1", "?", "1"), Attempt(None, (BAD,), False), (), None, None, "vanilla answer wrong", Sampling(9), "m"
)


def test_every_field_survives_the_file(tmp_path: Path) -> None:
    write_records(tmp_path / "r.jsonl", [FOUND, MISSED])
    assert read_records(tmp_path / "r.jsonl") == [FOUND, MISSED]


def test_a_record_without_a_budget_line_has_the_papers(tmp_path: Path) -> None:
    """It is from before there could be another."""
    write_records(tmp_path / "r.jsonl", [MISSED])
    row = json.loads((tmp_path / "r.jsonl").read_text())
    del row["budget_line"]
    (tmp_path / "r.jsonl").write_text(json.dumps(row) + "\n")
    assert read_records(tmp_path / "r.jsonl") == [MISSED]


def test_a_record_from_before_ids_were_kept_has_none(tmp_path: Path) -> None:
    write_records(tmp_path / "r.jsonl", [MISSED])
    row = json.loads((tmp_path / "r.jsonl").read_text())
    del row["vanilla"]["answers"][0]["ids"]
    (tmp_path / "r.jsonl").write_text(json.dumps(row) + "\n")
    assert read_records(tmp_path / "r.jsonl") == [MISSED]


def test_a_record_is_one_line_and_readable_as_text(tmp_path: Path) -> None:
    write_records(tmp_path / "r.jsonl", [FOUND, MISSED])
    first, second = (tmp_path / "r.jsonl").read_bytes().decode().split("\n")[:2]
    assert "三加四等于几？" in first
    assert json.loads(second)["target"] is None


def test_a_missing_target_is_null_and_never_the_word_none(tmp_path: Path) -> None:
    """The official code saves the string 'None' as the target, and would train on it."""
    write_records(tmp_path / "r.jsonl", [MISSED])
    row = json.loads((tmp_path / "r.jsonl").read_text())
    assert (row["target"], row["budget"]) == (None, None)
    row["target"] = "None"
    (tmp_path / "r.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=r"r\.jsonl:1: not a search record"):
        read_records(tmp_path / "r.jsonl")


def test_the_best_answer_is_the_shortest_right_and_whole_one() -> None:
    assert Attempt(9, (LONG, BAD, CUT, SHORT), True).best is SHORT
    assert Attempt(9, (BAD, CUT), False).best is BAD
    assert [answer.usable for answer in (LONG, SHORT, BAD, CUT)] == [True, True, False, False]


@pytest.mark.parametrize(
    "row",
    [
        {"question": "How many?", "answer": "3"},
        {},
        asdict(MISSED) | {"question": {"id": "q", "text": "?"}},
        asdict(MISSED) | {"vanilla": None},
        asdict(MISSED) | {"attempts": [{"budget": 3}]},
        asdict(FOUND) | {"target": {"text": "7"}},
        asdict(FOUND) | {"target": asdict(SHORT) | {"ids": [27, 7]}},
        asdict(FOUND) | {"again": {"right": 9, "answered": 8, "temperature": 0.7}},
    ],
    ids=["foreign", "empty", "options", "vanilla", "attempt", "target", "ids", "again"],
)
def test_a_foreign_line_is_refused_by_file_and_line(row: dict, tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    file.write_text(json.dumps(asdict(FOUND)) + "\n\n" + json.dumps(row) + "\n")
    with pytest.raises(UserError, match=r"r\.jsonl:3: not a search record .*scripts/search\.py"):
        read_records(file)


def test_a_cut_off_line_is_refused_by_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    file.write_text((json.dumps(asdict(FOUND)) + "\n") * 2)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"r\.jsonl:2: not a whole JSON object"):
        read_records(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.jsonl: cannot be read"):
        read_records(tmp_path / "nowhere.jsonl")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    write_records(file, [FOUND])
    with pytest.raises(TypeError):
        write_records(file, [MISSED, "no record"])
    assert read_records(file) == [FOUND]
    assert [f.name for f in tmp_path.iterdir()] == ["r.jsonl"]
