"""Reasoning Gym (Stojanovski et al. 2025, arXiv:2505.24760): generated questions, four of its hundred datasets.

https://github.com/open-thought/reasoning-gym; Apache-2.0; the package reasoning-gym, in the extra `reasoning`. Two of
logic, one of text, and one of arithmetic:

    syllogism: {"question": "Consider these statements:\\n1. All adults are grandparents\\n2. No grandparents are fish
                \\n\\nDoes it logically follow that:\\nSome adults are not fish?\\n(Answer Yes or No)", "answer": "Yes"}
    aiw: {"question": "Patricia has 4 sisters and she also has 1 brothers. How many sisters does William's brother
          have?", "answer": "5", …}
    letter_counting: {"question": "How many times does the letter \\"c\\" appear in the text: \\"constitution is taxed
                      to the\\"?", "answer": "1", …}
    chain_sum: {"question": "State the final answer to the following arithmetic problem: 4 - 1 - 7 =", "answer": "-4"}

Yes or No becomes a single choice, without the sentence that asks for the word.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from tale.data.question import Question
from tale.errors import UserError
from tale.tasks.jsonl import numeric, text

NAMES = {f"reasoning_gym_{dataset}": dataset for dataset in ("syllogism", "aiw", "letter_counting", "chain_sum")}
# The hash of a question, modulo 10, decides its split, whatever the seed.
TENTHS = {"train": range(7), "test": range(7, 10)}
TRIES = 100  # generated rows per wanted question, as others are duplicates or of another split
ASKED_FOR = "\n(Answer Yes or No)"


def generate(name: str, split: str, count: int, seed: int) -> list[Question]:
    """The first `count` questions of a split, all different; a longer list starts with the shorter one.

    Raises:
        UserError: no such split, fewer than `count` questions, or the package is not installed.
    """
    if split not in TENTHS:
        raise UserError(f"task.split={split}: {name} has {' and '.join(TENTHS)}")
    questions = list(islice(_questions(name, split, TRIES * count, seed), count))
    if len(questions) < count:
        raise UserError(f"task.limit={count}: {name} has only {len(questions)} different questions in this split")
    return questions


def question(row: dict[str, Any], id: str) -> Question:
    """Convert a generated row; UserError if its answer is neither a number nor Yes or No."""
    asked, answer = text(row, "question"), text(row, "answer")
    if answer in ("Yes", "No"):
        letter = "A" if answer == "Yes" else "B"
        return Question(id, asked.removesuffix(ASKED_FOR), letter, "choice", options=("Yes", "No"))
    return Question(id, asked, numeric(answer))


def _questions(name: str, split: str, tries: int, seed: int) -> Iterator[Question]:
    try:
        from reasoning_gym import create_dataset
    except ImportError as error:
        raise UserError(
            f"{name}: the package reasoning-gym is not installed; pip install -c constraints.txt -e '.[reasoning]'"
        ) from error
    # A row's seed is the sum of the dataset's seed and its number: shifted seeds are too far apart to share rows.
    rows = create_dataset(NAMES[name], size=tries, seed=seed << 32)
    seen: set[str] = set()
    for i in range(tries):
        found = question(rows[i], "")
        digest = found.question_hash
        if int(digest, 16) % 10 in TENTHS[split] and digest not in seen:
            yield replace(found, id=f"{name}/{split}-s{seed}/{len(seen)}")
            seen.add(digest)
