"""Strategies in an evaluation: what their replies hold, their table, curves and indices, each figure by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tale.errors import UserError
from tale.evaluation.replies import Reply, answer_all, read_replies
from tale.solvers.registry import METHODS
from tests.fake_engine import GREEDY, FakeEngine, questions, right, wrong

QUESTIONS = questions(2)
SAMPLES = {"q/0": [wrong(30), right(50), right(40), right(9)], "q/1": [right(60), wrong(70), wrong(20), right(9)]}


def replies(kind: str, **options: Any) -> list[Reply]:
    """A strategy's replies to the two questions, whose samples are the same whatever asks for them."""
    engine = FakeEngine(QUESTIONS, lambda asked: SAMPLES[asked.question.id][asked.sample])
    return answer_all(METHODS[kind](**options), QUESTIONS, engine, GREEDY)


# --- Replies --------------------------------------------------------------------------------------------------------


def test_a_strategys_replies_are_read_back_as_they_were(tmp_path: Path) -> None:
    made = replies("self_consistency", total_budget=150, temperature=0.7) + replies("vanilla")
    file = tmp_path / "replies.jsonl"
    file.write_text("".join(f"{json.dumps(reply.line)}\n" for reply in made))
    assert [reply for of in read_replies(file).values() for reply in of] == made


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda line: line["calls"][1].update(parent=1), r"calls\[1\].parent is 1, which is no earlier call"),
        (lambda line: line["calls"][1].update(parent=-1), r"Expected `int` >= 0 - at `\$.calls\[1\].parent`"),
        (lambda line: line["calls"][1].update(tokens=51), "tokens is 120, the calls' are 121"),
        (lambda line: line.update(prompt_tokens=29), "prompt_tokens is 29, the calls' are 30"),
        (lambda line: line["answers"][0].update(call=3), r"answers\[0\].call is 3 of 3 calls"),
        (lambda line: line["answers"][0].update(tokens=121), r"answers are at \[121, 120\] tokens of 120"),
        (lambda line: line["answers"][1].update(tokens=121), r"answers are at \[30, 121\] tokens of 120"),
        (
            lambda line: line["answers"][1].update(correct=False),
            "the last of answers has correct=False, ",
        ),
        (lambda line: line.pop("calls"), "total_budget, calls and answers are not all given"),
        (lambda line: line["calls"][0].pop("limit"), "missing required field `limit`"),
        (lambda line: line["calls"][0].update(finish="end"), r"Invalid enum value 'end' - at `\$.calls\[0\].finish`"),
    ],
)
def test_a_strategys_damaged_line_is_named(damage: Callable[[dict], Any], message: str, tmp_path: Path) -> None:
    lines = [reply.line for reply in replies("self_consistency", total_budget=150, temperature=0.7)]
    lines[0] = json.loads(json.dumps(lines[0]))
    damage(lines[0])
    file = tmp_path / "replies.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines[::-1]))
    with pytest.raises(UserError, match=rf"replies.jsonl:2: not a reply \(.*{message}"):
        read_replies(file)
