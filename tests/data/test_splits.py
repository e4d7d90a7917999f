"""Duplicates and the split by context: no question twice, no story on both sides."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tale.config.sections import ContextSplit, TaskConfig
from tale.data.question import Question
from tale.data.splits import contexts, deduplicate, preamble, split_by_context, uncontaminated
from tale.errors import UserError
from tale.tasks import load
from tale.tasks.mathbench import FILES
from tale.tasks.selection import select_questions


@dataclass
class Card:
    """Of what was trained on."""

    questions: list[str]
    contexts: list[str]
    hashes: int = 2


def questions(*texts: str) -> list[Question]:
    return [Question(f"q/{i}", text, str(i)) for i, text in enumerate(texts)]


OPENING = "Story {}: Natalia sold clips to many of her friends in April and in May. "
ENDS = ("How many in April?", "And how many in May?")
STORIES = questions(*(OPENING.format(i) + end for i in range(100) for end in ENDS))


def test_the_first_of_equal_questions_stays() -> None:
    kept, dropped = deduplicate(questions("How many?", "Which one?", "How \u00a0many?\n", "Which one?"))
    assert [q.id for q in kept] == ["q/0", "q/1"]
    assert dropped == 2


@pytest.mark.parametrize(
    "texts",
    [
        [f"What is 7 {sign} 3?" for sign in "+-*/^<>=≠±"],
        ["Round 3.5.", "Round 35.", "Round 3,5.", "Round -3.5."],
        ["कितने?", "किताने?", "कुतने?"],  # vowel signs alone differ
        ["How many mW?", "How many MW?"],
        ["Is A ⊂ B?", "Is A ⊃ B?", "Is A ∪ B?"],
        ["What is 2²?", "What is 22?", "What is 2_2?"],
        ["3 (4 + 5)", "(3 4) + 5"],
    ],
)
def test_questions_that_differ_in_a_sign_alone_are_different(texts: list[str]) -> None:
    assert deduplicate(asked := questions(*texts)) == (asked, 0)


def test_composed_and_decomposed_letters_are_the_same_question() -> None:
    assert deduplicate(questions("Combien de caf\u00e9s\u00a0?", "Combien de cafe\u0301s ?"))[1] == 1


def test_options_tell_questions_apart() -> None:
    choices = [Question(str(i), "Which?", "A", "choice", options=(str(i), "x")) for i in range(2)]
    assert deduplicate(choices) == (choices, 0)
    cuts = [Question(str(i), "Which?", "A", "choice", options=o) for i, o in enumerate((("a b", "c"), ("a", "b c")))]
    assert deduplicate(cuts) == (cuts, 0)


@given(st.floats(0, 1), st.integers())
def test_the_sides_share_no_context_and_lose_no_question(held_out: float, seed: int) -> None:
    train, test = (split_by_context(STORIES, part, held_out, seed) for part in ("train", "test"))
    assert not {q.context_hash for q in train} & {q.context_hash for q in test}
    assert sorted(train + test, key=STORIES.index) == STORIES
    assert train == sorted(train, key=STORIES.index)


def test_the_share_is_kept_and_grows_by_contexts() -> None:
    small, large = (split_by_context(STORIES, "test", share, 0) for share in (0.2, 0.4))
    assert set(small) < set(large)
    assert 0.13 < len(small) / len(STORIES) < 0.27
    assert split_by_context(STORIES, "test", 0, 0) == split_by_context(STORIES, "train", 1, 0) == []


def test_the_split_is_the_same_on_every_machine() -> None:
    """Written down: another hash would move test questions into training data between two versions."""
    held_out = split_by_context(STORIES, "test", 0.03, 7)
    assert [q.id for q in held_out] == [f"q/{i}" for i in (136, 137, 170, 171)]
    assert split_by_context(STORIES, "test", 0.03, 8) != held_out


@pytest.mark.parametrize(("part", "held_out"), [("train", 1.5), ("test", -0.1), ("both", 0.5)])
def test_a_wrong_side_or_share_is_an_error(part: str, held_out: float) -> None:
    with pytest.raises(UserError, match=r"task\.(test_fraction|context_split)="):
        split_by_context(STORIES, part, held_out, 0)


def test_gsm8k_zero_repeats_itself_and_the_stories_of_gsm8k(shared_data: Path) -> None:
    zero = load("gsm8k_zero", str(shared_data / "gsm8k_zero" / "dev.jsonl"), "test")
    train = load("gsm8k", str(shared_data / "gsm8k" / "train.jsonl"), "train")
    assert deduplicate(zero)[1] == 8
    assert deduplicate(train)[1] == 0

    openings, contexts = {q.text[:60] for q in train}, {q.context_hash for q in train}
    assert sum(q.text[:60] in openings for q in zero) == 1671
    assert sum(q.context_hash in contexts for q in zero) == 1888  # the hash also sees through case and punctuation

    learnt = {q.context_hash for q in split_by_context(train, "train", 0.3, 0)}
    tested = split_by_context(zero, "test", 0.3, 0)
    assert not learnt & {q.context_hash for q in tested}
    assert 500 < len(tested) < 700


# --- Preambles ------------------------------------------------------------------------------------------------------

PREAMBLE = "Solve the following word problem step by step and give only the final number, nothing more: "


@pytest.mark.parametrize("preambles", [[PREAMBLE], [PREAMBLE * 5], [PREAMBLE, "Compute. " + PREAMBLE, PREAMBLE * 2]])
def test_a_preamble_keeps_each_story_on_one_side(preambles: list[str]) -> None:
    """And both sides have stories."""
    told = questions(*(preambles[i // 2 % len(preambles)] + q.text for i, q in enumerate(STORIES)))
    train, test = (split_by_context(told, part, 0.3, 0) for part in ("train", "test"))
    assert 40 < len(test) < 80
    assert sorted(train + test, key=told.index) == told
    story = {q: i // 2 for i, q in enumerate(told)}
    assert {story[q] for q in train}.isdisjoint(story[q] for q in test)
    assert preamble(told) == (
        "200 of 200 questions share their first 60 characters with too many others for a story: longer openings are "
        "their contexts (100 contexts in total)"
    )


def test_questions_of_the_same_words_are_their_own_contexts() -> None:
    sums = questions(*(f"What is {i} {sign} 3?" for i in range(5) for sign in "+-*/" * (i == 4) or "+"))
    assert len(set(contexts(sums[4:]))) == 4
    assert contexts(sums[:4]) == [q.context_hash for q in sums[:4]]
    assert preamble(sums[:4]) is None


def test_no_shipped_benchmark_has_a_preamble(shared_data: Path) -> None:
    """So their splits are those of the opening of 60 characters."""
    for name, file in {
        "gsm8k": "gsm8k/test",
        "gsm8k_zero": "gsm8k_zero/dev",
        **{name: f"mathbench/{file}" for name, file in FILES.items()},
    }.items():
        rows = load(name, str(shared_data / f"{file}.jsonl"), "test")
        assert contexts(rows) == [q.context_hash for q in rows], name


def test_a_trained_story_is_recognised_under_a_preamble() -> None:
    """In any file."""
    told = questions(*(PREAMBLE + q.text for q in STORIES))
    trained, others = told[:50:2], told[1:100:2]  # one question of 25 stories; the other ones of 50
    card = Card([q.question_hash for q in trained], contexts(trained))
    assert uncontaminated(others, [card]) == {q.id for q in others[25:]}
    assert uncontaminated(others[24:26], [card]) == {others[25].id}  # too few to know a preamble by
    with pytest.raises(UserError, match="1 of these questions were trained on"):
        uncontaminated(told[48:50], [card])


def test_a_side_without_questions_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text("".join(json.dumps({"question": q.text, "answer": 1}) + "\n" for q in STORIES[:2]))
    config = TaskConfig(name="jsonl", path=str(file), context_split=ContextSplit.test, test_fraction=0.0)
    with pytest.raises(
        UserError, match=r"context_split=test: jsonl has no question there; its 2 questions are of 2 contexts"
    ):
        select_questions(config)
    assert capsys.readouterr().out.startswith(
        "task.context_split=test: 2 of 2 questions share their first 60 characters"
    )
