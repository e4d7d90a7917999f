"""B is a promise: what every strategy keeps to, whatever the model answers, over an engine of scripted tokens."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tale.evaluation.replies import graded_reply
from tale.inference import Completion, Request, Sampling
from tale.solvers.base import Solution
from tale.solvers.registry import METHODS
from tale.solvers.strategy import Strategy
from tests.fake_engine import questions
from tests.token_engine import WORD, Script, TokenEngine

(QUESTION,) = questions(1)
STRATEGIES = sorted(kind for kind, of in METHODS.items() if issubclass(of, Strategy))
# Options besides the default ones, for small budgets.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "anytime": [{"step": 3, "answer_reserve": 2}, {"step": 1, "answer_reserve": 1, "epsilon": None}],
    "best_of_n": [{"value_tokens": 1}, {"scorer": "majority"}],
    "debate": [{"agents": 2, "rounds": 3}],
    "single": [{"force_answer": True, "answer_reserve": 3}, {"wait": 2}],
    "tree_of_thoughts": [
        {"candidates": 2, "value_tokens": 1, "answer_reserve": 2},
        {"method_generate": "sample", "value_tokens": 1, "answer_reserve": 2, "stop": ["and"]},
    ],
    "tree_search": [
        {"min_step_tokens": 2, "value_tokens": 1, "answer_reserve": 2, "stop": ["and"], "answer_by": "majority"},
        {"min_step_tokens": 2, "value": "agreement", "answer_reserve": 2, "allocation": "bavt"},
    ],
}
# Under another B their chains are others, as they divide it among calls.
DIVIDING = {"debate", "tree_of_thoughts", "tree_search"}
CASES = [(kind, options) for kind in STRATEGIES for options in ({}, *OPTIONS.get(kind, []))]
CHEAP = settings(max_examples=15, deadline=None)

ENDINGS = ("", "[[7]]", "[[8]] and more", "7]]", "8]] or so", "0.5]]", "[[12]]", "as said", "7")
texts = st.lists(
    st.builds(lambda words, ending: f"{'and ' * words}{ending}" or "so", st.integers(0, 12), st.sampled_from(ENDINGS)),
    min_size=1,
    max_size=6,
)
budgets = st.integers(1, 60)
stated = st.sampled_from([None, "total", "estimate", "25"])


def any_of(answers: list[Any]) -> Script:
    """One of the answers for each request, always the same one for the same request."""
    return lambda asked: answers[crc32(f"{asked.prompt} {asked.sample}".encode()) % len(answers)]


def solved(kind: str, script: Script, max_tokens: int = 50, **options: Any) -> tuple[Solution, list]:
    """A strategy's solution, and its steps of calls at the same time."""
    method = METHODS[kind](temperature=0.7, **options)
    return TokenEngine(script).run(method.solve(QUESTION, Sampling(max_tokens=max_tokens)))


def within(budget: int, steps: list[list[tuple[Request, Completion]]]) -> bool:
    """Whether the limits of each step's calls are what is left at most, together, and at least 1 each."""
    for step in steps:
        limits = [request.sampling.max_tokens for request, _ in step]
        if sum(limits) > budget or min(limits) < 1:
            return False
        budget -= sum(completion.tokens for _, completion in step)
    return budget >= 0


def words(request: Request) -> int:
    """Words of a request's prompt."""
    return sum(len(WORD.findall(message.content)) for message in request.messages)


def completed(solution: Solution) -> int:
    """Chains that ended by themselves."""
    return sum(call.role == "chain" and call.completion.finish == "stop" for call in solution.calls)


@pytest.mark.parametrize(("kind", "options"), CASES)
@CHEAP
@given(answers=texts, budget=budgets, prompt_budget=stated, max_tokens=st.integers(1, 60))
def test_no_call_is_given_more_than_is_left(
    kind: str, options: dict, answers: list[str], budget: int, prompt_budget: str | None, max_tokens: int
) -> None:
    solution, steps = solved(
        kind, any_of(answers), max_tokens, total_budget=budget, prompt_budget=prompt_budget, **options
    )
    assert within(budget, steps)
    reply = graded_reply("m", QUESTION, solution)
    assert reply.output_tokens == sum(completion.tokens for step in steps for _, completion in step) <= budget
    assert [(call.limit, call.tokens) for call in reply.calls] == [
        (request.sampling.max_tokens, completion.tokens) for step in steps for request, completion in step
    ]
    tokens = [answer.tokens for answer in reply.answers]
    assert tokens == sorted(tokens)
    assert reply.value == (reply.calls[reply.answers[-1].call].value if reply.answers else None)


@pytest.mark.parametrize(("kind", "options"), CASES)
@CHEAP
@given(answers=texts, budget=budgets, prompt_budget=stated, max_tokens=st.integers(1, 60))
def test_no_call_is_longer_than_the_longest_request(
    kind: str, options: dict, answers: list[str], budget: int, prompt_budget: str | None, max_tokens: int
) -> None:
    """Prompt and limit together, in words; prompts hold what earlier calls generated."""
    method = METHODS[kind](temperature=0.7, total_budget=budget, prompt_budget=prompt_budget, **options)
    sampling, engine = Sampling(max_tokens=max_tokens), TokenEngine(any_of(answers))
    engine.run(method.solve(QUESTION, sampling))
    checked = method.longest_requests(QUESTION, sampling)
    longest, asked = ([words(each) + each.sampling.max_tokens for each in of] for of in (checked, engine.requests))
    assert max(asked, default=0) <= max(longest)


@pytest.mark.parametrize("kind", STRATEGIES)
@CHEAP
@given(answers=texts, multiplier=st.floats(0.1, 4))
def test_an_estimate_that_defines_b_is_apart_from_it(kind: str, answers: list[str], multiplier: float) -> None:
    """And where it cannot be read, B is sampling.max_tokens."""
    solution, (estimate, *steps) = solved(kind, any_of(answers), budget_multiplier=multiplier)
    ((_, estimated),) = estimate
    assert solution.total_budget == (solution.estimate.budget(multiplier) or 50)
    assert within(solution.total_budget, steps)
    reply = graded_reply("m", QUESTION, solution)
    assert (reply.estimator_tokens, reply.output_tokens) == (estimated.tokens, reply.tokens + estimated.tokens)
    assert reply.tokens == sum(completion.tokens for step in steps for _, completion in step)


@pytest.mark.parametrize(("kind", "options"), [case for case in CASES if case[0] not in DIVIDING])
@CHEAP
@given(answers=texts, budget=budgets)
def test_with_b_doubled_no_fewer_chains_are_completed(
    kind: str, options: dict, answers: list[str], budget: int
) -> None:
    less, more = (solved(kind, any_of(answers), total_budget=b, **options)[0] for b in (budget, 2 * budget))
    assert completed(less) <= completed(more)


@pytest.mark.parametrize(("kind", "options"), CASES)
@CHEAP
@given(words=st.lists(st.integers(10, 14), min_size=1, max_size=4), budget=st.integers(1, 10))
def test_below_the_shortest_answer_there_is_none(kind: str, options: dict, words: list[int], budget: int) -> None:
    """Every answer has at least 10 tokens before its own."""
    solution, _ = solved(kind, any_of([f"{'1 ' * each}7]] [[7]]" for each in words]), total_budget=budget, **options)
    reply = graded_reply("m", QUESTION, solution)
    assert (reply.value, reply.correct) == (None, False)
    assert reply.tokens <= budget


@pytest.mark.parametrize(("kind", "options"), CASES)
@pytest.mark.parametrize("nothing", [Completion.failed("refused"), Completion("", 0, "stop", 9)])
@CHEAP
@given(answers=texts, made=st.integers(0, 6))
def test_a_call_that_generates_nothing_is_the_last_one(
    kind: str, options: dict, nothing: Completion, answers: list[str], made: int
) -> None:
    """Or of those made at the same time as the last ones."""
    script = any_of(answers)
    engine = TokenEngine(lambda asked: script(asked) if len(engine.requests) < made else nothing)
    method = METHODS[kind](temperature=0.7, total_budget=60, **options)
    solution, steps = engine.run(method.solve(QUESTION, Sampling(max_tokens=50)))
    empty = [not all(completion.tokens for _, completion in step) for step in steps]
    assert not any(empty[:-1])
    reply = graded_reply("m", QUESTION, solution)
    assert reply.value == (reply.calls[reply.answers[-1].call].value if reply.answers else None)
    if made == 0:
        assert reply.error == nothing.error
