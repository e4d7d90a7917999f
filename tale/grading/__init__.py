"""Reading a reply and grading it against the gold answer (§6, accuracy = mean of 1{M(x_i) = y_i}).

Only the completion is read, never the prompt, whose own example `[[50]]` would otherwise count.
"""

from __future__ import annotations

from dataclasses import dataclass

from tale.data.question import Question
from tale.grading.compare import equal, incomparable
from tale.grading.numbers import number
from tale.grading.reading import UNMARKED, Reading, Via, read

__all__ = ["UNMARKED", "Reading", "Verdict", "Via", "equal", "grade", "incomparable", "number", "read"]


@dataclass(frozen=True)
class Verdict:
    """A graded reply: `value` and `via` are its `Reading`."""

    correct: bool
    value: str | None
    via: Via


def grade(reply: str, question: Question, truncated: bool) -> Verdict:
    r"""Read a completion and compare it with the gold answer.

    A truncated one is read by its `[[…]]` or `\boxed{…}` only: its last number is an intermediate one.
    """
    reading = read(reply, question.kind, question.language, marked_only=truncated)
    correct = reading.value is not None and equal(reading.value, question.gold, question.kind)
    return Verdict(correct, reading.value, reading.via)
