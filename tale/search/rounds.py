"""The search over many questions: a round is one large batch, the next budget of every question still searched.

An answer is feasible iff right, not cut off, and cheaper than its strategy's limit. With several samples a rule decides
whether a budget is answered right; the shortest right sample is then its answer.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from tale import prompts
from tale.answers import grade
from tale.data.question import Question
from tale.engines import Completion, Engine, Request, Sampling
from tale.records import Answer, Attempt, Record
from tale.search.strategies import Search, greedy
from tale.statistics import wilson

# Right answers, of all samples → whether the budget counts as answered right.
RULES: dict[str, Callable[[int, int], bool]] = {
    "shortest": lambda right, samples: right > 0,
    "majority": lambda right, samples: right > samples / 2,
    "confident": lambda right, samples: wilson(right, samples)[0] > 0.5,
}


def search(
    questions: Sequence[Question],
    engine: Engine,
    sampling: Sampling,
    samples: int = 1,
    strategy: Callable[[Attempt], Search] = greedy,
    rule: str = "shortest",
    window: int = 1024,
    answered: Callable[[], object] = lambda: None,
) -> Iterator[Record]:
    """Search `window` questions at the same time; yield a record each, in the order given.

    A round asks each of them its next prompt, vanilla first; a question that is done makes room for the next.
    `answered` is called after each completion.

    A question whose vanilla answer is wrong or cut off is not searched.
    """
    waiting = iter(questions)
    live: list[_OneSearch] = []
    begun: deque[_OneSearch] = deque()  # in order, until they are given back
    while True:
        fresh = [_OneSearch(question, strategy, rule) for question in islice(waiting, window - len(live))]
        live, begun = live + fresh, begun + deque(fresh)
        if not live:
            return
        asked = [(one.question, one.budget) for one in live]
        for one, attempt in zip(live, _ask(engine, asked, sampling, samples, answered), strict=True):
            one.advance(attempt)
        live = [one for one in live if not one.done]
        while begun and begun[0].done:
            yield begun.popleft().record(sampling, engine.tokenizer)


class _OneSearch:
    """Where one question's search stands: it waits for an answer under `budget` (None: vanilla), unless it is `done`.

    An answer under a budget is feasible only below `limit` tokens.
    """

    def __init__(self, question: Question, strategy: Callable[[Attempt], Search], rule: str):
        self.question, self.strategy, self.right = question, strategy, RULES[rule]
        self.vanilla: Attempt | None = None
        self.attempts: list[Attempt] = []
        self.budget, self.limit = None, math.inf
        self.done = False
        self.found: Attempt | None = None

    def advance(self, attempt: Attempt) -> None:
        """Judge the answers that were waited for, and find the next budget."""
        if self.vanilla is None:
            self.vanilla = attempt
            self.done = not self._counts(attempt)
            if not self.done:
                self.steps = self.strategy(attempt)
                self._go_on(None)
            return
        feasible = self._counts(attempt) and attempt.best.tokens < self.limit
        self.attempts.append(Attempt(attempt.budget, attempt.answers, feasible))
        self._go_on(self.attempts[-1])

    def record(self, sampling: Sampling, tokenizer: str) -> Record:
        """The finished search. A budget whose answers do not count (`printed`) is no target."""
        assert self.vanilla
        found = self.found
        target = found.best if found and self._counts(found) else None
        return Record(
            question=self.question,
            vanilla=self.vanilla,
            attempts=tuple(self.attempts),
            budget=found.budget if found else None,
            target=target,
            reason=None if target else self._reason(self.vanilla),
            sampling=sampling,
            tokenizer=tokenizer,
        )

    def _counts(self, attempt: Attempt) -> bool:
        return self.right(sum(answer.usable for answer in attempt.answers), len(attempt.answers))

    def _go_on(self, attempt: Attempt | None) -> None:
        try:
            self.budget, self.limit = self.steps.send(attempt)  # type: ignore[arg-type]
        except StopIteration as end:
            self.done, self.found = True, end.value

    def _reason(self, vanilla: Attempt) -> str:
        if self._counts(vanilla):
            return "no feasible budget" if self.found is None else "the searched budget failed"
        finish = vanilla.best.finish
        return {"length": "vanilla answer cut off", "content_filter": "vanilla answer filtered"}.get(
            finish, "vanilla answer wrong"
        )


def _ask(
    engine: Engine,
    asked: list[tuple[Question, int | None]],
    sampling: Sampling,
    samples: int,
    answered: Callable[[], object],
) -> list[Attempt]:
    """One attempt for each (question, budget), `samples` answers in each; feasibility is the caller's to judge."""
    requests = [
        Request(prompts.vanilla(question) if budget is None else prompts.budgeted(question, budget), sample)
        for question, budget in asked
        for sample in range(samples)
    ]
    answers: dict[int, Answer] = {}
    for i, completion in engine.generate(requests, sampling):
        answers[i] = answer(completion, asked[i // samples][0])
        answered()
    return [
        Attempt(budget, tuple(answers[n * samples + sample] for sample in range(samples)), feasible=False)
        for n, (_, budget) in enumerate(asked)
    ]


def answer(completion: Completion, question: Question) -> Answer:
    """A completion with its grade."""
    verdict = grade(completion.text, question, completion.truncated)
    return Answer(completion.text, completion.tokens, completion.finish, verdict.correct, verdict.value, verdict.via)
