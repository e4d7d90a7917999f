"""Which questions are used, and on which side. Pure functions: the same questions and seed give the same split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol

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


class Seen(Protocol):
    """The card of what was trained, an adapter or an estimator: hashes of its questions and of their contexts."""

    questions: Sequence[str]
    contexts: Sequence[str]


def unseen(questions: Sequence[Question], cards: Sequence[Seen | None], key: str = "benchmark") -> set[str]:
    """Ids of the questions whose context was never trained on. `key` names where the questions are from.

    Raises:
        UserError: a question itself was trained on.
    """
    trained = {digest for card in cards if card for digest in card.questions}
    contexts = {digest for card in cards if card for digest in card.contexts}
    if seen := [q.id for q in questions if q.question_hash in trained]:
        raise UserError(
            f"{key}: {len(seen)} of these questions were trained on ({', '.join(seen[:3])} …); evaluate on another "
            "split, or on the other side of the split by context (benchmark.part=test, the same held_out and seed)"
        )
    return {q.id for q in questions if q.context_hash not in contexts}


def _position(seed: int, purpose: str, context: str) -> float:
    """A context's place in [0, 1), the same on every machine; 52 bits, so that no rounding reaches 1."""
    return int(hashlib.sha256(f"{purpose}/{seed}/{context}".encode()).hexdigest()[:13], 16) / 2**52
