"""Deduplication, splits and contamination. Pure functions: the same questions and seed give the same split."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from tale.data.question import CONTEXT_CHARS, HASH_VERSION, Question
from tale.errors import UserError


def deduplicate(questions: Iterable[Question]) -> tuple[list[Question], int]:
    """The questions without duplicates (by `question_hash`; the first stays), and how many were dropped."""
    questions = list(questions)
    first: dict[str, Question] = {}
    for question in questions:
        first.setdefault(question.question_hash, question)
    return list(first.values()), len(questions) - len(first)


# An opening that more questions share is a preamble, not a story; in the benchmarks here at most 4 share one.
MAX_SHARING = 16


def contexts(questions: Sequence[Question]) -> list[str]:
    """Each question's context, as a hash: its opening (`Question.context_hash`), which questions about one story share.

    An opening that more than `MAX_SHARING` questions share, or more than half of them, is not a story but a preamble
    ("Solve the following problem and …"). It is extended by 60 characters at a time, at most to the whole question,
    until few enough share it. So a file with a preamble can be split, and for other files the split does not depend on
    their length or order.
    """
    openings = {q.question_hash: q.openings for q in questions}
    most = max(1, min(MAX_SHARING, len(openings) / 2))
    chosen = dict.fromkeys(openings, 0)
    longer = list(openings)
    while longer:
        sizes = Counter(openings[question][i] for question, i in chosen.items())
        longer = [q for q, i in chosen.items() if sizes[openings[q][i]] > most and i + 1 < len(openings[q])]
        chosen.update((question, chosen[question] + 1) for question in longer)
    return [openings[q.question_hash][chosen[q.question_hash]] for q in questions]


def preamble(questions: Sequence[Question]) -> str | None:
    """A sentence about the questions with a preamble, for which longer openings are used; None if there are none."""
    pairs = list(zip(questions, contexts(questions), strict=True))
    moved = [(q, context) for q, context in pairs if context != q.context_hash]
    if not moved:
        return None
    return (
        f"{len(moved)} of {len(pairs)} questions share their first {CONTEXT_CHARS} characters with too many others for "
        f"a story: longer openings are their contexts ({len({context for _, context in pairs})} contexts in total)"
    )


def split_by_context(
    questions: Iterable[Question], side: str, test_fraction: float, seed: int, purpose: str = "benchmark"
) -> list[Question]:
    """The questions of one side, "train" or "test", in the given order.

    A context (see `contexts`) is on the test side if a hash of seed and context, as a number in [0, 1), is below
    `test_fraction`. So all questions about one story are on the same side, in all files: GSM8K-Zero's stories are
    GSM8K's. Splits of different `purpose` are independent: a validation split can divide one side of the benchmark's.

    Raises:
        UserError: `test_fraction` is not in [0, 1], or `side` is neither "train" nor "test".
    """
    if not 0 <= test_fraction <= 1:
        raise UserError(f"task.test_fraction={test_fraction}: must be between 0 and 1")
    if side not in ("train", "test"):
        raise UserError(f"task.context_split={side}: train or test")
    questions = list(questions)
    sides = zip(questions, contexts(questions), strict=True)
    return [q for q, context in sides if (_position(seed, purpose, context) < test_fraction) == (side == "test")]


class TrainingManifest(Protocol):
    """What an adapter or an estimator was trained on: hashes of the questions and of their contexts.

    `hashes` is the `HASH_VERSION` of the code that wrote it.
    """

    @property
    def questions(self) -> Sequence[str]: ...

    @property
    def contexts(self) -> Sequence[str]: ...

    @property
    def hashes(self) -> int: ...


def check_hash_version(card: TrainingManifest, file: Path, remedy: str) -> None:
    """Refuse a card with hashes of another version: no question would be found in it.

    Raises:
        UserError: its version is not this code's; `remedy` says how to write a new card.
    """
    if card.hashes != HASH_VERSION:
        raise UserError(
            f"{file}: has question hashes of version {card.hashes}, this code has version {HASH_VERSION}: questions "
            f"that were trained on would not be recognised; {remedy}"
        )


def uncontaminated(
    questions: Sequence[Question], cards: Sequence[TrainingManifest | None], key: str = "task"
) -> set[str]:
    """Ids of the questions none of whose openings is a context that was trained on.

    `key` is the recipe's key of the questions, for errors.

    Raises:
        UserError: a question itself was trained on.
    """
    trained = {digest for card in cards if card for digest in card.questions}
    stories = {digest for card in cards if card for digest in card.contexts}
    if seen := [q.id for q in questions if q.question_hash in trained]:
        raise UserError(
            f"{key}: {len(seen)} of these questions were trained on ({', '.join(seen[:3])} …); evaluate on another "
            "split, or on the other side of the split by context (task.context_split=test, the same test_fraction and "
            "seed)"
        )
    return {q.id for q in questions if stories.isdisjoint(q.openings)}


def _position(seed: int, purpose: str, context: str) -> float:
    """A context's hash as a number in [0, 1), the same on every machine; 52 bits, so that rounding does not reach 1."""
    return int(hashlib.sha256(f"{purpose}/{seed}/{context}".encode()).hexdigest()[:13], 16) / 2**52


def subsample(questions: Sequence[Question], count: int, seed: int) -> list[Question]:
    """`count` random questions, in their order; a larger sample contains every smaller one."""
    order = list(range(len(questions)))
    random.Random(seed).shuffle(order)
    return [questions[i] for i in sorted(order[:count])]
