"""The calls of a strategy for one question, within a budget of output tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tale.data.prompts import Message
from tale.data.question import Question
from tale.estimators import Estimate
from tale.grading import read
from tale.inference import Completion, Request, Sampling
from tale.inference.scheduler import Result, Solver
from tale.solvers.base import Call, Solution


@dataclass(frozen=True)
class Ask:
    """A call to make. `limit`: most output tokens, if fewer than are left; `greedy`: at temperature 0.

    See `Call` and `Request` for the rest.
    """

    messages: tuple[Message, ...]
    role: str = "chain"
    limit: int | None = None
    sample: int = 0
    parent: int | None = None
    stop: tuple[str, ...] = ()
    continued: bool = False
    greedy: bool = False


class Spending:
    """Makes calls that together generate at most `budget` tokens; holds them, and the answer so far.

    A call that fails or generates nothing ends the spending, since the same request would fail again.
    """

    def __init__(self, question: Question, sampling: Sampling, budget: int):
        self.question, self.sampling, self.budget = question, sampling, budget
        self.calls: list[Call] = []
        self.answers: list[tuple[int, Call]] = []  # the call with the answer from so many tokens on
        self.ended = False

    @property
    def spent(self) -> int:
        """Output tokens of all calls."""
        return sum(call.completion.tokens for call in self.calls)

    @property
    def left(self) -> int:
        """Output tokens that the next calls may generate."""
        return 0 if self.ended else self.budget - self.spent

    def call(self, messages: tuple[Message, ...], role: str = "chain", **of: Any) -> Solver[Call | None]:
        """Make one call (`Ask`); None if nothing is left, or if it generates nothing."""
        made = yield from self.several([Ask(messages, role, **of)])
        return made[0] if made and made[0].completion.tokens else None

    def several(self, asks: Sequence[Ask]) -> Solver[list[Call]]:
        """Make calls at the same time: within their limits if so much is left, else each within an equal share of it.

        A call without a limit asks for all that is left. No call is made if one of them would get less than 1 token.
        """
        limits = [self.left if ask.limit is None else ask.limit for ask in asks]
        if sum(limits) > self.left:
            limits = [min(limit, self.left // len(asks)) for limit in limits]
        if min(limits, default=0) < 1:
            return []
        requests = [self._request(*of) for of in zip(asks, limits, strict=True)]
        completions = yield requests
        first = len(self.calls)
        for i, (ask, request, completion) in enumerate(zip(asks, requests, completions, strict=True), first):
            self.calls.append(Call(request, completion, ask.role, i, ask.parent))
            self.ended = self.ended or completion.tokens == 0
        return self.calls[first:]

    def within(self, solver: Solver[Result], role: str) -> Solver[Result]:
        """Run another solver's calls as part of this spending."""
        completions: list[Completion] | None = None
        while True:
            try:
                requests = solver.send(completions)  # type: ignore[arg-type]
            except StopIteration as end:
                return end.value
            asks = [Ask(r.messages, role, r.sampling.max_tokens, r.sample, stop=r.stop) for r in requests]
            completions = [call.completion for call in (yield from self.several(asks))]

    def value(self, call: Call) -> str | None:
        """The answer that a call's turn has; None if it has none."""
        kind, language = self.question.kind, self.question.language
        return read(call.text, kind, language, marked_only=call.open).value

    def answer(self, call: Call) -> None:
        """Take a call's turn as the answer from now on."""
        if not self.answers or self.answers[-1][1].number != call.number:
            self.answers.append((self.spent, call))

    def score(self, number: int, score: float) -> None:
        """Record the value of a call's node."""
        self.calls[number] = replace(self.calls[number], score=score)

    def solution(self, prompt: tuple[Message, ...], stated: int | None, estimate: Estimate) -> Solution:
        """The last answer; without one an empty text, which ended as the call that failed or the last one did."""
        completions = [call.completion for call in self.calls]
        failed = [completion for completion in completions if completion.error]
        last = (failed or completions or [Completion("", 0, "length", 0)])[-1]
        nothing = Call(Request(prompt, self.sampling), Completion("", 0, last.finish, 0, error=last.error))
        answer = self.answers[-1][1] if self.answers else nothing
        before = estimate.completion.tokens if estimate.completion else 0
        answers = tuple((before + spent, call) for spent, call in self.answers)
        return Solution(answer, stated, estimate, tuple(self.calls), answers, self.budget)

    def _request(self, ask: Ask, limit: int) -> Request:
        sampling = replace(self.sampling, max_tokens=min(limit, self.sampling.max_tokens))
        if ask.greedy:
            sampling = replace(sampling, temperature=0.0)
        return Request(ask.messages, sampling, ask.sample, ask.stop, continued=ask.continued)
