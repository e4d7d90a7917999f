"""Which questions are used, and on which side. Pure functions: the same questions and seed give the same split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from tale.data.question import Question
from tale.errors import UserError


def deduplicate(questions: Iterable[Question]) -> tuple[list[Question], int]:
    """The questions without repeats (by `question_hash`; the first one stays), and how many were dropped."""
    questions = list(questions)
    first: dict[str, Question] = {}
    for question in questions:
        first.setdefault(question.question_hash, question)
    return list(first.values()), len(questions) - len(first)


def by_context(
    questions: Iterable[Question], part: str, held_out: float, seed: int, purpose: str = "benchmark"
) -> list[Question]:
    """The questions of one side, "train" or "test", in their order.

    A context goes to the test side if a hash of seed and context falls below `held_out`, its share in [0, 1]. So all
    questions about one story are on one side, in every file: GSM8K-Zero's stories are GSM8K's. Splits of different
    `purpose` are independent: a validation split of one side's questions finds both of its own sides there.

    Raises:
        UserError: `held_out` is no share, or `part` no side.
    """
    if not 0 <= held_out <= 1:
        raise UserError(f"benchmark.held_out={held_out}: a share between 0 and 1")
    if part not in ("train", "test"):
        raise UserError(f"benchmark.part={part}: train or test")
    return [q for q in questions if (_position(seed, purpose, q.context_hash) < held_out) == (part == "test")]


def _position(seed: int, purpose: str, context: str) -> float:
    """A context's place in [0, 1), the same on every machine; 52 bits, so that no rounding reaches 1."""
    return int(hashlib.sha256(f"{purpose}/{seed}/{context}".encode()).hexdigest()[:13], 16) / 2**52
