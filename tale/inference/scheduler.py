"""Running many solvers concurrently over one engine."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Generic, TypeVar

from tale.inference.requests import Completion, Engine, Request, request_source

Result = TypeVar("Result")
# A coroutine for one question: it yields requests, is sent their completions in the same order, and returns a result.
Solver = Generator[Sequence[Request], Sequence[Completion], Result]
MAX_WAITING = 16  # finished results that may wait for an earlier solver, as a multiple of `max_in_flight`


def solve(
    solvers: Iterable[Solver[Result]],
    engine: Engine,
    max_in_flight: int = 256,
    on_completion: Callable[[int], object] = lambda _: None,
) -> Generator[Result, None, None]:
    """Run up to `max_in_flight` solvers at the same time; yield their results in the order given.

    A solver's next step is ready as soon as its step is answered. The engine takes ready requests when it has room,
    first come, first served, and the next solver is taken from `solvers` only when one is done. After each completion
    `on_completion` gets the number of solvers that are done, some of which may wait for an earlier one.
    """
    running = _Running(iter(solvers), max_in_flight)
    while True:
        running.count = 0  # the engine counts each time from 0
        requests = running.take()
        if not running.begun:
            return
        with closing(engine.generate(request_source(requests, running.take))) as answers:
            for number, completion in answers:
                running.give(number, completion)
                on_completion(running.done)
                yield from running.results()
        yield from running.results()  # of solvers without requests


class _Task(Generic[Result]):
    """A running solver: the requests of its step with the completions so far, or its result."""

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
        """Take the completion of a request; return whether the step was complete, so that the next one is ready."""
        self.completions[i] = completion
        if len(self.completions) < len(self.requests):
            return False
        self._step([self.completions[i] for i in range(len(self.requests))])
        return True


class _Running(Generic[Result]):
    """The solvers that have started and whose results are not yielded yet, and their pending requests."""

    def __init__(self, solvers: Iterator[Solver[Result]], window: int):
        self.solvers, self.window = solvers, window
        self.begun: deque[_Task[Result]] = deque()  # in order
        self.ready: list[_Task[Result]] = []
        self.asked: dict[int, tuple[_Task[Result], int]] = {}  # by the engine's numbers
        self.live = self.done = self.count = 0

    def take(self) -> list[Request]:
        """All ready requests, after starting further solvers."""
        while self.live < self.window and len(self.begun) < MAX_WAITING * self.window:
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
        """The results that can be yielded by now, in order."""
        while self.begun and self.begun[0].result:
            yield from self.begun.popleft().result

    def _sort(self, task: _Task[Result]) -> None:
        """Count a task that is done, or add it to the ready ones."""
        if task.result:
            self.live, self.done = self.live - 1, self.done + 1
        else:
            self.ready.append(task)
