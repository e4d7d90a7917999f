"""Duplicates and the split by context: no question twice, no story on both sides."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tale.data.benchmarks import load
from tale.data.question import Question
from tale.data.splits import by_context, deduplicate
from tale.errors import UserError


def questions(*texts: str) -> list[Question]:
    return [Question(f"q/{i}", text, str(i)) for i, text in enumerate(texts)]


OPENING = "Story {}: Natalia sold clips to many of her friends in April and in May. "
ENDS = ("How many in April?", "And how many in May?")
STORIES = questions(*(OPENING.format(i) + end for i in range(100) for end in ENDS))


def test_the_first_of_equal_questions_stays() -> None:
    kept, dropped = deduplicate(questions("How many?", "Which one?", "how  many", "Which one?"))
    assert [q.id for q in kept] == ["q/0", "q/1"]
    assert dropped == 2


def test_options_tell_questions_apart() -> None:
    choices = [Question(str(i), "Which?", "A", "choice", options=(str(i), "x")) for i in range(2)]
    assert deduplicate(choices) == (choices, 0)


@given(st.floats(0, 1), st.integers())
def test_the_sides_share_no_context_and_lose_no_question(held_out: float, seed: int) -> None:
    train, test = (by_context(STORIES, part, held_out, seed) for part in ("train", "test"))
    assert not {q.context_hash for q in train} & {q.context_hash for q in test}
    assert sorted(train + test, key=STORIES.index) == STORIES
    assert train == sorted(train, key=STORIES.index)


def test_the_share_is_kept_and_grows_by_contexts() -> None:
    small, large = (by_context(STORIES, "test", share, 0) for share in (0.2, 0.4))
    assert set(small) < set(large)
    assert 0.13 < len(small) / len(STORIES) < 0.27
    assert by_context(STORIES, "test", 0, 0) == by_context(STORIES, "train", 1, 0) == []


def test_the_split_is_the_same_on_every_machine() -> None:
    """Written down: another hash would move test questions into training data between two versions."""
    held_out = by_context(STORIES, "test", 0.03, 7)
    assert [q.id for q in held_out] == [f"q/{i}" for i in (136, 137, 170, 171)]
    assert by_context(STORIES, "test", 0.03, 8) != held_out


@pytest.mark.parametrize(("part", "held_out"), [("train", 1.5), ("test", -0.1), ("both", 0.5)])
def test_a_wrong_side_or_share_is_an_error(part: str, held_out: float) -> None:
    with pytest.raises(UserError, match=r"benchmark\.(held_out|part)="):
        by_context(STORIES, part, held_out, 0)


def test_gsm8k_zero_repeats_itself_and_the_stories_of_gsm8k(shared_data: Path) -> None:
    zero = load("gsm8k_zero", str(shared_data / "gsm8k_zero" / "dev.jsonl"), "test")
    train = load("gsm8k", str(shared_data / "gsm8k" / "train.jsonl"), "train")
    assert deduplicate(zero)[1] == 8
    assert deduplicate(train)[1] == 0

    openings, contexts = {q.text[:60] for q in train}, {q.context_hash for q in train}
    assert sum(q.text[:60] in openings for q in zero) == 1671
    assert sum(q.context_hash in contexts for q in zero) == 1888  # the hash also sees through case and punctuation

    learnt = {q.context_hash for q in by_context(train, "train", 0.3, 0)}
    tested = by_context(zero, "test", 0.3, 0)
    assert not learnt & {q.context_hash for q in tested}
    assert 500 < len(tested) < 700
