"""Which questions are used, and on which side. Pure functions: the same questions and seed give the same split."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from tale.data.question import CONTEXT_CHARS, HASHES, Question
from tale.errors import UserError


def deduplicate(questions: Iterable[Question]) -> tuple[list[Question], int]:
    """The questions without repeats (by `question_hash`; the first one stays), and how many were dropped."""
    questions = list(questions)
    first: dict[str, Question] = {}
    for question in questions:
        first.setdefault(question.question_hash, question)
    return list(first.values()), len(questions) - len(first)


# An opening that more questions share than this is a preamble and no story; in the benchmarks here 4 at most share one.
STORY = 16


def contexts(questions: Sequence[Question]) -> list[str]:
    """Each question's context, as a hash: its opening (`Question.context_hash`), questions about one story sharing it.

    An opening that more than `STORY` questions share, or more than half of them, is no story but a preamble ("Solve
    the following problem and …"). It is made longer, 60 characters at a time, until they differ; the longest is the
    question itself. So a file of one preamble can be split, and no other file's split depends on its length or order.
    """
    openings = {q.question_hash: q.openings for q in questions}
    most = max(1, min(STORY, len(openings) / 2))
    chosen = dict.fromkeys(openings, 0)
    longer = list(openings)
    while longer:
        sizes = Counter(openings[question][i] for question, i in chosen.items())
        longer = [q for q, i in chosen.items() if sizes[openings[q][i]] > most and i + 1 < len(openings[q])]
        chosen.update((question, chosen[question] + 1) for question in longer)
    return [openings[q.question_hash][chosen[q.question_hash]] for q in questions]


def preamble(questions: Sequence[Question]) -> str | None:
    """What the split by context did about a preamble, in a sentence; None where there is none."""
    pairs = list(zip(questions, contexts(questions), strict=True))
    moved = [(q, context) for q, context in pairs if context != q.context_hash]
    if not moved:
        return None
    return (
        f"{len(moved)} of {len(pairs)} questions share their first {CONTEXT_CHARS} characters with too many others for "
        f"a story: longer openings are their contexts ({len({context for _, context in pairs})} contexts in all)"
    )


def by_context(
    questions: Iterable[Question], part: str, held_out: float, seed: int, purpose: str = "benchmark"
) -> list[Question]:
    """The questions of one side, "train" or "test", in their order.

    A context (see `contexts`) goes to the test side if a hash of seed and context falls below `held_out`, its share in
    [0, 1]. So all questions about one story are on one side, in every file: GSM8K-Zero's stories are GSM8K's. Splits of
    different `purpose` are independent: a validation split of one side's questions finds both of its own sides there.

    Raises:
        UserError: `held_out` is no share, or `part` no side.
    """
    if not 0 <= held_out <= 1:
        raise UserError(f"task.test_fraction={held_out}: a share between 0 and 1")
    if part not in ("train", "test"):
        raise UserError(f"task.context_split={part}: train or test")
    questions = list(questions)
    sides = zip(questions, contexts(questions), strict=True)
    return [q for q, context in sides if (_position(seed, purpose, context) < held_out) == (part == "test")]


class Seen(Protocol):
    """The card of what was trained, an adapter or an estimator: hashes of its questions and of their contexts.

    `hashes` is the `HASHES` of the code that wrote it.
    """

    @property
    def questions(self) -> Sequence[str]: ...

    @property
    def contexts(self) -> Sequence[str]: ...

    @property
    def hashes(self) -> int: ...


def check_hashes(card: Seen, file: Path, remedy: str) -> None:
    """Refuse a card whose hashes this code does not make: no question would be found in it.

    Raises:
        UserError: it is of another version; `remedy` says how to make a new one.
    """
    if card.hashes != HASHES:
        raise UserError(
            f"{file}: identifies questions by version {card.hashes} of their hashes, this code by {HASHES}: what was "
            f"trained on would not be recognised; {remedy}"
        )


def unseen(questions: Sequence[Question], cards: Sequence[Seen | None], key: str = "task") -> set[str]:
    """Ids of the questions whose context was never trained on, whichever of its openings that was.

    `key` names where the questions are from.

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
    """A context's place in [0, 1), the same on every machine; 52 bits, so that no rounding reaches 1."""
    return int(hashlib.sha256(f"{purpose}/{seed}/{context}".encode()).hexdigest()[:13], 16) / 2**52


def drawn(questions: Sequence[Question], count: int, seed: int) -> list[Question]:
    """`count` questions at random, in their order; a larger draw contains every smaller one."""
    order = list(range(len(questions)))
    random.Random(seed).shuffle(order)
    return [questions[i] for i in sorted(order[:count])]
