"""What every estimator takes and gives, and the two bounds of what one can reach: a constant, and β* itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from tale.data.question import Question
from tale.inference import Completion


@dataclass(frozen=True)
class Estimate:
    """β̂ of one question in tokens. Without one the question is asked as vanilla CoT; `fallback` says why it was wanted.

    `completion` is what the estimator itself generated: its tokens belong to the method's cost. None: it cost none.
    """

    value: Fraction | float | None
    completion: Completion | None = None
    fallback: str | None = None

    def budget(self, multiplier: float = 1.0) -> int | None:
        """⌈α·β̂⌉ (A.8), exactly as the decimal α is written."""
        return None if self.value is None else math.ceil(Fraction(str(multiplier)) * Fraction(self.value))


class Estimator(Protocol):
    """From questions to budgets, without asking a model."""

    def estimate(self, questions: Sequence[Question]) -> list[Estimate]:
        """An estimate each, in the order given."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same budget for every question; None: no budget, which is vanilla CoT."""

    value: float | None

    def estimate(self, questions: Sequence[Question]) -> list[Estimate]:
        """The constant for each."""
        return [Estimate(self.value)] * len(questions)


@dataclass(frozen=True)
class Oracle:
    """β* itself, by question hash, from a search of the same questions: what no estimator can know."""

    stars: Mapping[str, int | None]

    def estimate(self, questions: Sequence[Question]) -> list[Estimate]:
        """β* where the search found one."""
        found = [self.stars.get(question.question_hash) for question in questions]
        return [Estimate(star, fallback=None if star else "no searched budget") for star in found]
