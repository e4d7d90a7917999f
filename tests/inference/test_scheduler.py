"""The scheduler: many solvers over one engine, in order, each at its own pace, no more of them than is wanted."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tale.inference import Completion, Request
from tale.inference.requests import RequestSource
from tale.inference.scheduler import MAX_WAITING, Solver, solve
from tests.fake_engine import ask


class Echo:
    """Answers with the prompt, `room` requests at the same time, in a random order; `most` were at hand."""

    tokenizer = "echo"

    def __init__(self, room: int = 4, seed: int = 0):
        self.room, self.random = room, random.Random(seed)
        self.answered: list[str] = []
        self.idle = 0  # free places while answers were awaited, summed over all answers

    def generate(self, more: RequestSource) -> Iterator[tuple[int, Completion]]:
        waiting: list[tuple[int, Request]] = []
        running: list[tuple[int, Request]] = []
        numbers = count()
        while True:
            if len(waiting) < self.room - len(running):
                waiting += ((next(numbers), request) for request in more())
            while waiting and len(running) < self.room:
                running.append(waiting.pop(0))
            if not running:
                return
            self.idle += self.room - len(running)
            i, request = running.pop(self.random.randrange(len(running)))
            self.answered.append(request.prompt)
            yield i, Completion(request.prompt, 1, "stop", 1)


def steps(name: int, widths: list[int]) -> Solver[tuple[int, int]]:
    """A solver of one step for each width, which is how many requests it makes at once; checks its completions."""
    answers = 0
    for step, width in enumerate(widths):
        requests = [ask(f"{name} {step} {i}") for i in range(width)]
        completions = yield requests
        assert [c.text for c in completions] == [r.prompt for r in requests]
        answers += width
    return name, answers


@given(
    st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=40), st.integers(1, 9), st.integers(1, 9), st.integers()
)
def test_solvers_get_their_own_answers_and_results_keep_order(
    plans: list[list[int]], window: int, room: int, seed: int
) -> None:
    engine = Echo(room, seed)
    results = list(solve((steps(i, plan) for i, plan in enumerate(plans)), engine, window))
    assert results == [(i, sum(plan)) for i, plan in enumerate(plans)]
    assert len(engine.answered) == len(set(engine.answered)) == sum(map(sum, plans))


def test_solvers_begin_as_others_end_and_results_come_early() -> None:
    """As soon as those before them are there."""
    begun: list[int] = []

    def solvers() -> Iterator[Solver[tuple[int, int]]]:
        for i in range(40):
            begun.append(i)
            yield steps(i, [1, 1])

    given = solve(solvers(), Echo(room=2), max_in_flight=5)
    assert begun == []
    for done, _ in enumerate(given, 1):
        assert len(begun) <= done + 5 + 1  # what is not given back, and the one that the window still takes
    assert begun == list(range(40))


def test_behind_a_slow_solver_only_so_many_results_wait() -> None:
    """The first has 200 steps, the others one: they are not all begun before it is done."""
    begun = count()
    seen: list[int] = []

    def slow() -> Solver[str]:
        for step in range(200):
            yield [ask(f"slow {step}")]
            seen.append(next(begun))
        return "slow"

    def fast(i: int) -> Solver[str]:
        next(begun)
        yield [ask(f"fast {i}")]
        return "fast"

    window = 2
    results = list(solve([slow(), *map(fast, range(500))], Echo(room=2), window))
    assert results == ["slow", *["fast"] * 500]
    fast_before = [n - i for i, n in enumerate(seen)]  # begun before each step of the slow one
    assert max(fast_before) < MAX_WAITING * window


def test_a_solver_with_many_calls_starves_no_other() -> None:
    """Two of eight ask 50 times, the others once: with room for four, no place is free until little is left."""
    plans = [[1] * 50, [1], [1], [1] * 50, *[[1]] * 196]
    engine = Echo(room=4)
    list(solve((steps(i, plan) for i, plan in enumerate(plans)), engine, max_in_flight=8))
    ends = [engine.answered.index(f"{i} 0 0") for i in range(len(plans))]
    assert max(ends[:20]) < 60  # the others pass beside the two
    before_the_last = engine.answered.index("199 0 0")
    assert before_the_last < len(engine.answered)
    assert engine.idle <= 2 * 100  # places are free only once the two are alone


def test_the_first_ready_is_the_first_asked() -> None:
    engine = Echo(room=1)
    list(solve((steps(i, [1, 1]) for i in range(3)), engine, max_in_flight=3))
    assert engine.answered == ["0 0 0", "1 0 0", "2 0 0", "0 1 0", "1 1 0", "2 1 0"]


def test_memory_does_not_grow_with_the_questions() -> None:
    """7,473, GSM8K's training questions, of three calls each, take no more than 500."""

    def peak(questions: int) -> int:
        tracemalloc.start()
        engine = Echo(room=64)
        engine.answered = type("Forgetful", (list,), {"append": lambda *_: None})()
        for _ in solve((steps(i, [1, 1, 1]) for i in range(questions)), engine, max_in_flight=256):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(300)
    assert peak(7473) < 1.5 * peak(1000)


def test_how_many_are_done_is_told_after_each_answer() -> None:
    told: list[int] = []
    list(solve((steps(i, [1, 1]) for i in range(3)), Echo(room=1), on_completion=told.append))
    assert told == [0, 0, 0, 1, 2, 3]


@pytest.mark.parametrize("when", ["at once", "after an answer"])
def test_an_error_in_a_solver_reaches_the_caller(when: str) -> None:
    def broken() -> Solver[None]:
        if when == "after an answer":
            yield [ask("a")]
        raise ZeroDivisionError
        yield []

    with pytest.raises(ZeroDivisionError):
        list(solve([broken()], Echo()))


def test_a_caller_that_stops_early_closes_the_engine() -> None:
    closed: list[bool] = []

    class Closing(Echo):
        def generate(self, more: RequestSource) -> Iterator[tuple[int, Completion]]:
            try:
                yield from super().generate(more)
            finally:
                closed.append(True)

    results = solve((steps(i, [1]) for i in range(9)), Closing())
    next(results)
    assert closed == []
    results.close()
    assert closed == [True]
