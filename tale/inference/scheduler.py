"""Many questions at the same time over one engine, each at its own pace."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Generic, TypeVar

from tale.inference.requests import Completion, Engine, Request, once

Result = TypeVar("Result")
# A coroutine for one question: it yields requests, is sent their completions in the same order, and returns a result.
Solver = Generator[Sequence[Request], Sequence[Completion], Result]
AHEAD = 16  # windows of results that wait, at most, for a solver before them


def solve(
    solvers: Iterable[Solver[Result]],
    engine: Engine,
    window: int = 256,
    answered: Callable[[int], object] = lambda _: None,
) -> Generator[Result, None, None]:
    """Run up to `window` solvers at the same time; yield their results in the order given.

    As soon as a solver's step is answered its next one is ready. The engine takes what is ready when it has room, first
    come first served, and a solver that is done makes room for the next, which is taken from `solvers` only then. After
    each completion `answered` is told how many are done, which are more than have been given back where an earlier one
    is not done.
    """
    running = _Running(iter(solvers), window)
    while True:
        running.count = 0  # the engine counts each time from 0
        requests = running.take()
        if not running.begun:
            return
        with closing(engine.generate(once(requests, running.take))) as answers:
            for number, completion in answers:
                running.give(number, completion)
                answered(running.done)
                yield from running.results()
        yield from running.results()  # of solvers that asked nothing


class _Task(Generic[Result]):
    """A solver that has begun: the requests of its step, those of their completions that are there, or its result."""

    def __init__(self, solver: Solver[Result]):
        self.solver = solver
        self.result: list[Result] = []  # one, once it is done
        self._step(None)

    def _step(self, completions: Sequence[Completion] | None) -> None:
        try:
            self.requests = self.solver.send(completions)  # type: ignore[arg-type]
            while not self.requests:
                self.requests = self.solver.send([])
        except StopIteration as end:
            self.requests, self.result = [], [end.value]
        self.completions: dict[int, Completion] = {}

    def give(self, i: int, completion: Completion) -> bool:
        """Take the completion of a request; whether it was the step's last, so that the next one is there."""
        self.completions[i] = completion
        if len(self.completions) < len(self.requests):
            return False
        self._step([self.completions[i] for i in range(len(self.requests))])
        return True


class _Running(Generic[Result]):
    """The solvers that have begun and are not given back, and where their requests stand with the engine."""

    def __init__(self, solvers: Iterator[Solver[Result]], window: int):
        self.solvers, self.window = solvers, window
        self.begun: deque[_Task[Result]] = deque()  # in order
        self.ready: list[_Task[Result]] = []
        self.asked: dict[int, tuple[_Task[Result], int]] = {}  # by the engine's count
        self.live = self.done = self.count = 0

    def take(self) -> list[Request]:
        """The requests that are ready, those of further solvers among them."""
        while self.live < self.window and len(self.begun) < AHEAD * self.window:
            solver = next(self.solvers, None)
            if solver is None:
                break
            self.begun.append(_Task(solver))
            self.live += 1
            self._sort(self.begun[-1])
        tasks, self.ready = self.ready, []
        asked = [(task, i) for task in tasks for i in range(len(task.requests))]
        self.asked |= enumerate(asked, self.count)
        self.count += len(asked)
        return [task.requests[i] for task, i in asked]

    def give(self, number: int, completion: Completion) -> None:
        """Take the completion of a request."""
        task, i = self.asked.pop(number)
        if task.give(i, completion):
            self._sort(task)

    def results(self) -> Iterator[Result]:
        """What can be given back by now, in order."""
        while self.begun and self.begun[0].result:
            yield from self.begun.popleft().result

    def _sort(self, task: _Task[Result]) -> None:
        """Put a task that has just made a step where it belongs."""
        if task.result:
            self.live, self.done = self.live - 1, self.done + 1
        else:
            self.ready.append(task)
