"""TALE-EP's own estimator (§5.2, Fig 5): a language model is asked for the budget, the evaluated one or another."""

from __future__ import annotations

from fractions import Fraction

from tale.data import prompts
from tale.data.question import Question
from tale.estimators.base import Estimate
from tale.grading import number, read
from tale.inference import Completion, Request, Sampling
from tale.inference.scheduler import Solver


def zero_shot(question: Question, sampling: Sampling) -> Solver[Estimate]:
    """What the model names, in one call whose tokens count; a reply that names no positive number is no estimate."""
    (completion,) = yield [Request.user(prompts.estimate(question), sampling)]
    return estimate_of(completion)


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
