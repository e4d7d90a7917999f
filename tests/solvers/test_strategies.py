"""Strategies at equal budgets, on answers that a test writes."""

from __future__ import annotations

from tale.config.recipes import load
from tale.evaluation.budgets import with_budgets
from tale.evaluation.recipe import EvaluateRecipe
from tale.evaluation.replies import Reply, answer_all
from tale.inference import Completion, Sampling
from tale.solvers.registry import METHODS
from tests.fake_engine import GREEDY, FakeEngine, questions, right, wrong

QUESTIONS = questions(1)


def answered(kind: str, samples: list[Completion], sampling: Sampling = GREEDY, **options: object) -> Reply:
    """The reply of a strategy that gets these samples."""
    engine = FakeEngine(QUESTIONS, lambda asked: samples[asked.sample])
    (reply,) = answer_all(METHODS[kind](**options), QUESTIONS, engine, sampling)
    return reply


def test_self_consistency_stops_before_it_would_exceed_b():
    samples = [wrong(30), right(50), right(40), wrong(40), wrong(1)]
    reply = answered("self_consistency", samples, total_budget=160)
    # After 3 samples the mean is 40, which fits into the 40 left; after the 4th nothing is left.
    assert [(call.limit, call.tokens) for call in reply.calls] == [(160, 30), (130, 50), (80, 40), (40, 40)]
    # 8, then a tie in which the 8 was first, then 7 with two votes, then a tie again, in which 7 had two first.
    assert [(answer.tokens, answer.correct) for answer in reply.answers] == [(30, False), (120, True)]
    assert (reply.tokens, reply.value, reply.correct) == (160, "7", True)
    assert [call.tokens for call in answered("self_consistency", samples, total_budget=159).calls] == [30, 50, 40]


def test_every_strategy_without_b_runs_at_each_of_the_budgets():
    recipe = load(
        EvaluateRecipe,
        [
            "recipe=tiny/eval",
            "budgets=[64, 32]",
            "methods=[{kind: vanilla}, {kind: single}, {kind: single, total_budget: 8}]",
        ],
    )
    names = [method.name for method in with_budgets(recipe)]
    assert names == ["Vanilla CoT", "Single chain, B = 64", "Single chain, B = 32", "Single chain, B = 8"]
