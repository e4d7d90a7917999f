"""The interface of estimators, and their lower and upper bound: a constant, and β* itself."""

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
    """β̂ of one question in tokens; None: the question is asked as vanilla CoT, and `fallback` says why, if unintended.

    `completion` is the estimator's own call, whose tokens are part of the method's cost; None: no call.
    """

    value: Fraction | float | None
    completion: Completion | None = None
    fallback: str | None = None

    def budget(self, multiplier: float = 1.0) -> int | None:
        """⌈α·β̂⌉ (A.8), computed exactly from α's decimal digits."""
        return None if self.value is None else math.ceil(Fraction(str(multiplier)) * Fraction(self.value))


class Estimator(Protocol):
    """An estimator without calls to a model."""

    def estimate(self, questions: Sequence[Question]) -> list[Estimate]:
        """An estimate per question, in the order given."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same budget for every question; None: no budget, which is vanilla CoT."""

    value: float | None

    def estimate(self, questions: Sequence[Question]) -> list[Estimate]:
        """The constant for every question."""
        return [Estimate(self.value)] * len(questions)


@dataclass(frozen=True)
class Oracle:
    """β* itself, by question hash, from a search of the same questions: an upper bound for estimators."""

    optimal_budgets: Mapping[str, int | None]

    def estimate(self, questions: Sequence[Question]) -> list[Estimate]:
        """β* of the questions for which the search found one."""
        found = [self.optimal_budgets.get(question.question_hash) for question in questions]
        return [Estimate(star, fallback=None if star else "no searched budget") for star in found]
