"""TALE-EP's own estimator (§5.2, Fig 5): a language model is asked for the budget, the evaluated one or another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from tale import prompts
from tale.data.question import Question
from tale.engines import Completion, Engine, Request, Sampling, complete
from tale.estimators.base import Estimate
from tale.grading import number, read


@dataclass(frozen=True)
class ZeroShot:
    """One more query for each question, whose tokens count. `label` is shown while it runs.

    `seeds`: each question's, where it is not the sampling's.
    """

    engine: Engine
    sampling: Sampling
    label: str
    seeds: Sequence[int | None] | None = None

    def estimate(self, questions: Sequence[Question]) -> list[Estimate]:
        """What the model names; a reply that names no positive number is no estimate."""
        seeds = self.seeds or [None] * len(questions)
        requests = [Request(prompts.estimate(q), own_seed=seed) for q, seed in zip(questions, seeds, strict=True)]
        return list(map(estimate_of, complete(self.engine, requests, self.sampling, f"{self.label}: estimator")))


def estimate_of(reply: Completion) -> Estimate:
    """What an estimator's reply says, with what it cost."""
    if reply.error:
        return Estimate(None, fallback="estimate not answered")
    value = read_estimate(reply.text)
    return Estimate(value, reply, None if value else "unreadable estimate")


def read_estimate(reply: str) -> Fraction | None:
    """β̂ from an estimator's reply, or None where it names no positive number."""
    estimate = number(read(reply, "number", what="budget").value or "")
    return estimate if estimate and estimate > 0 else None
