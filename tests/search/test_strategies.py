"""The search strategies with a fake engine, against their results worked out another way."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tale.data.records import Record
from tale.inference import Completion, Request
from tale.inference.requests import RequestSource
from tale.search.recipe import SearchRecipe
from tale.search.solver import ACCEPTANCE, search
from tale.search.strategies import (
    STRATEGIES,
    TRUNCATING,
    algorithm1_verbatim,
    bisection,
    greedy,
    grid,
    max_calls,
    shortest_correct,
)
from tests.fake_engine import GREEDY, Asked, FakeEngine, questions, right, wrong

LADDER = partial(grid, fractions=[0.1, 0.2, 0.5, 0.9, 1])


def searched(reply, strategy) -> tuple[Record, list[int]]:
    """The record of one question whose vanilla answer has 100 tokens, and the budgets that were asked, in order."""
    asked = questions(1)
    engine = FakeEngine(asked, lambda a: right(100) if a.budget is None else reply(a.budget))
    (record,) = search(asked, engine, GREEDY, strategy=strategy)
    return record, [call.budget for call in engine.calls[1:]]


def monotone(least: int):
    """Right from `least` up, and cheaper the smaller the budget."""
    return lambda budget: (right if budget >= least else wrong)(min(budget, 99))


def elastic(budget: int) -> Completion:
    """Fig 1: always right, cheapest at 30, long again below."""
    return right(budget if budget >= 30 else 130 - budget)


def test_shortest_correct_continues_where_greedy_stops() -> None:
    """Under 25 the answer has 105 tokens, though right: greedy stops there, shortest_correct goes on down to 1."""
    assert searched(elastic, greedy)[0].budget == 50
    record, budgets = searched(elastic, shortest_correct)
    assert budgets == [50, 25, 12, 6, 3, 1]
    assert (record.budget, record.target.tokens) == (1, 129)


def test_shortest_correct_ends_at_the_first_wrong_answer() -> None:
    record, budgets = searched(monotone(20), shortest_correct)
    assert budgets == [50, 25, 12]
    assert record.budget == 25


@pytest.mark.parametrize("least", [1, 2, 17, 49, 50, 51, 98])
def test_bisection_finds_a_monotone_questions_least_budget(least: int) -> None:
    record, budgets = searched(monotone(least), bisection)
    assert record.budget == least
    assert len(budgets) <= math.ceil(math.log2(100))


def test_printed_pays_for_its_slips() -> None:
    """Algorithm 1 worked through by hand: each test asks β0 and then β, and the first feasible β comes twice."""
    record, budgets = searched(monotone(20), algorithm1_verbatim)
    assert budgets == [100, 50, 100, 50, 50, 25, 25, 12]
    assert (record.budget, record.target, record.reason) == (12, None, "the searched budget failed")
    assert searched(monotone(20), greedy)[1] == [50, 25, 12]


def test_printed_ends_at_a_budget_of_1() -> None:
    record, budgets = searched(monotone(1), algorithm1_verbatim)
    assert (budgets[-1], record.budget, record.target.tokens) == (1, 1, 1)


@given(st.lists(st.tuples(st.integers(1, 150), st.booleans()), min_size=100, max_size=100))
@settings(deadline=None)
def test_whatever_the_answers(answers: list[tuple[int, bool]]) -> None:
    """No budget is asked twice; β* is right, and the answer under it is the target."""
    tokens = {budget: answers[budget - 1][0] for budget in range(1, 101)}
    correct = {budget for budget in tokens if answers[budget - 1][1]}
    reply = lambda budget: (right if budget in correct else wrong)(tokens[budget])  # noqa: E731
    for strategy in (greedy, shortest_correct, bisection, LADDER):
        record, budgets = searched(reply, strategy)
        assert len(set(budgets)) == len(budgets) <= math.ceil(math.log2(100))
        assert [attempt.budget for attempt in record.attempts] == budgets
        if record.budget is None:
            assert record.target is None
        else:
            assert record.budget in correct
            assert record.target.tokens == tokens[record.budget]
        if strategy in (greedy, bisection):
            feasible = [attempt.best.tokens for attempt in record.attempts if attempt.feasible]
            assert all(later < earlier for earlier, later in pairwise([100, *feasible]))
    assert budgets == [10, 20, 50, 90, 100]
    assert record.budget == min(correct & set(budgets), key=lambda b: (tokens[b], b), default=None)


DRAWN = st.tuples(st.integers(1, 150), st.sampled_from(["right", "wrong", "cut"]))


@given(st.data(), st.sampled_from([*STRATEGIES.values()]), st.sampled_from([*ACCEPTANCE]), st.sampled_from([1, 3]))
@settings(deadline=None)
def test_cutting_off_lost_answers_changes_no_result(data, strategy, acceptance: str, samples: int) -> None:
    """Whatever the answers: the same β*, target and reason, budgets asked and verdicts, with no more tokens."""
    drawn: dict[tuple[int | None, int], Completion] = {}

    def reply(a: Asked) -> Completion:
        if (a.budget, a.sample) not in drawn:
            tokens, kind = data.draw(DRAWN)
            made = wrong(tokens) if kind == "wrong" else right(tokens, "length" if kind == "cut" else "stop")
            drawn[a.budget, a.sample] = made
        return drawn[a.budget, a.sample]

    if strategy is grid:
        strategy = LADDER
    asked = questions(1)
    both = {}
    for full in (True, False):
        engine = FakeEngine(asked, reply)
        how = {
            "strategy": strategy,
            "acceptance": acceptance,
            "samples": samples,
            "search_wrong": True,
            "full_answers": full,
        }
        (both[full],) = search(asked, engine, GREEDY, **how)
    whole, less = both[True], both[False]
    kept = lambda r: (r.budget, r.target, r.reason, r.vanilla, r.vanilla_wrong)  # noqa: E731
    assert kept(less) == kept(whole)
    verdicts = lambda r: [(a.budget, a.feasible) for a in r.attempts]  # noqa: E731
    assert verdicts(less) == verdicts(whole)
    for ours, theirs in zip(less.attempts, whole.attempts, strict=True):
        assert theirs.limit is None
        if ours.limit is None:
            assert ours == theirs
        for one, other in zip(ours.answers, theirs.answers, strict=True):
            assert one == other if other.tokens <= (ours.limit or 512) else one.tokens == ours.limit
    if strategy not in TRUNCATING or (samples > 1 and acceptance != "any"):
        assert less == whole


def test_an_answer_is_cut_where_it_is_as_long_as_the_best() -> None:
    """100, then 40 under 50, then 90 under 25, which is cut off at 40: by hand, 40 of 90 tokens are paid."""
    asked = questions(1)
    reply = lambda a: {None: right(100), 50: right(40), 25: right(90)}[a.budget]  # noqa: E731
    (record,) = search(asked, FakeEngine(asked, reply), GREEDY)
    assert [(a.limit, a.best.tokens, a.best.finish, a.feasible) for a in record.attempts] == [
        (100, 40, "stop", True),
        (40, 40, "length", False),
    ]
    assert (record.budget, record.target.tokens) == (50, 40)


class StrictEngine(FakeEngine):
    """As a server that calls an end at the last allowed token "length"."""

    def generate(self, more: RequestSource) -> Iterator[tuple[int, Completion]]:
        limits: list[int] = []

        def noted() -> Sequence[Request]:
            requests = more()
            limits.extend(request.sampling.max_tokens for request in requests)
            return requests

        for i, made in super().generate(noted):
            yield i, replace(made, finish="length") if made.tokens >= limits[i] else made


def test_an_end_at_the_last_allowed_token_may_be_called_length() -> None:
    """39 tokens are cheaper than 40: the limit leaves room for their end."""
    asked = questions(1)
    reply = lambda a: right({None: 100, 50: 40, 25: 39}.get(a.budget, 60))  # noqa: E731
    records = [search(asked, engine(asked, reply), GREEDY) for engine in (FakeEngine, StrictEngine)]
    assert [(record.budget, record.target.tokens) for (record,) in records] == [(25, 39)] * 2


def test_after_an_answer_of_one_token_none_shorter_is_asked() -> None:
    """An endpoint may count one token for "7": the next answers may have one too, and are as long as that one."""
    asked = questions(1)
    reply = lambda a: right({None: 100, 50: 1}.get(a.budget, 9))  # noqa: E731
    (record,) = search(asked, FakeEngine(asked, reply), GREEDY)
    assert [(a.budget, a.limit, a.feasible) for a in record.attempts] == [(50, 100, True), (25, 1, False)]
    assert (record.budget, record.target.tokens) == (50, 1)


def test_a_grid_asks_no_budget_twice_and_none_of_0() -> None:
    assert searched(elastic, partial(grid, fractions=[0.001, 0.01, 0.3, 0.301]))[1] == [1, 30]


@pytest.mark.parametrize(
    ("acceptance", "least"),
    [("any", 1), ("majority", 4), ("confident", 6)],  # Wilson's lower bounds: 0.436 for 5 of 6, 0.610 for 6
)
def test_how_many_of_six_samples_must_be_right(acceptance: str, least: int) -> None:
    assert [ACCEPTANCE[acceptance](count, 6) for count in range(7)] == [count >= least for count in range(7)]


def test_the_rule_is_for_the_vanilla_prompt_and_each_budget() -> None:
    """Vanilla: 3 of 3 right. Under 50: 1 of 3, with 25 tokens. Under 25 and less: none."""
    asked = questions(1)

    def reply(a):
        if a.budget is None:
            return right(100)
        return right(25) if (a.budget, a.sample) == (50, 1) else wrong(9)

    shortest, majority, confident = (
        next(search(asked, FakeEngine(asked, reply), GREEDY, samples=3, acceptance=acceptance))
        for acceptance in ACCEPTANCE
    )
    assert (shortest.budget, shortest.target.tokens) == (50, 25)
    assert (majority.budget, majority.reason, len(majority.attempts)) == (None, "no feasible budget", 1)
    assert (confident.attempts, confident.reason) == ((), "vanilla answer wrong")  # 3 of 3: from 0.44 on


@pytest.mark.parametrize(
    ("strategy", "calls"), [(greedy, 6), (shortest_correct, 6), (bisection, 7), (algorithm1_verbatim, 14), (LADDER, 5)]
)
def test_no_search_takes_more_calls_than_foretold(strategy, calls: int) -> None:
    """From 100 tokens: 50, 25, 12, 6, 3, 1; bisection ⌈log₂ 100⌉; algorithm1_verbatim asks twice, and the
    first budget again.
    """
    assert calls <= max_calls(strategy, 100) <= calls + 2
    for least in range(1, 100):
        assert len(searched(monotone(least), strategy)[1]) <= calls


def test_a_recipe_names_every_strategy_and_rule() -> None:
    fields = SearchRecipe.__dataclass_fields__
    assert fields["strategy"].metadata["choices"] == tuple(STRATEGIES)
    assert fields["acceptance"].metadata["choices"] == tuple(ACCEPTANCE)
