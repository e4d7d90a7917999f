"""TALE-EP's estimator (§5.2, Fig 5): a language model, the evaluated one or another, is asked for the budget."""

from __future__ import annotations

from fractions import Fraction

from tale.data import prompts
from tale.data.question import Question
from tale.estimators.base import Estimate
from tale.grading import number, read
from tale.inference import Completion, Request, Sampling
from tale.inference.scheduler import Solver


def zero_shot(question: Question, sampling: Sampling) -> Solver[Estimate]:
    """The budget that the model answers, in one call whose tokens count; no estimate without a positive number."""
    (completion,) = yield [Request.user(prompts.estimate(question), sampling)]
    return estimate_of(completion)


def estimate_of(reply: Completion) -> Estimate:
    """The estimate in an estimator's completion, with its cost."""
    if reply.error:
        return Estimate(None, fallback="estimate not answered")
    value = read_estimate(reply.text)
    return Estimate(value, reply, None if value else "unreadable estimate")


def read_estimate(reply: str) -> Fraction | None:
    """β̂ in an estimator's reply; None without a positive number."""
    estimate = number(read(reply, "number", what="budget").value or "")
    return estimate if estimate and estimate > 0 else None
