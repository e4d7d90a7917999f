"""What a reward sees of an answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """A graded answer. `correct`: right and not cut off; `tokens`: all generated ids, the end token included.

    `marked`: the answer is in `[[…]]`. `budget` is the one that its prompt states, in tokens.
    """

    correct: bool
    tokens: int
    truncated: bool = False
    marked: bool = False
    budget: int | None = None
