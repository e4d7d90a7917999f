"""The search over many questions: a round is one large batch, the next budget of every question still searched.

An answer is feasible iff right, not cut off, and cheaper than its strategy's limit. With several samples a rule decides
whether a budget is answered right; the shortest right sample is then its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tale import prompts
from tale.answers import grade
from tale.data.question import Question
from tale.engines import Completion, Engine, Request, Sampling, complete
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
) -> list[Record]:
    """Search every question; a record each, in the order given.

    A question whose vanilla answer is wrong or cut off is not searched.
    """
    vanilla = _ask(engine, [(q, None) for q in questions], sampling, samples, "vanilla")
    searches = [_OneSearch(*both, strategy, rule) for both in zip(questions, vanilla, strict=True)]
    while live := [s for s in searches if s.wanted]:
        asked = [(s.question, s.wanted[0]) for s in live if s.wanted]
        answered = _ask(engine, asked, sampling, samples, "under budgets")
        for one, attempt in zip(live, answered, strict=True):
            one.advance(attempt)
    return [s.record() for s in searches]


class _OneSearch:
    """Where one question's search stands. `wanted` is the next budget and the limit of its cost, None at the end."""

    def __init__(self, question: Question, vanilla: Attempt, strategy: Callable[[Attempt], Search], rule: str):
        self.question, self.vanilla, self.right = question, vanilla, RULES[rule]
        self.attempts: list[Attempt] = []
        self.wanted: tuple[int, float] | None = None
        self.found: Attempt | None = None
        if self._counts(vanilla):
            self.steps = strategy(vanilla)
            self._go_on(None)

    def advance(self, attempt: Attempt) -> None:
        """Judge the answers under the budget that was wanted, and find the next."""
        assert self.wanted
        feasible = self._counts(attempt) and attempt.best.tokens < self.wanted[1]
        self.attempts.append(Attempt(attempt.budget, attempt.answers, feasible))
        self._go_on(self.attempts[-1])

    def record(self) -> Record:
        """The finished search. A budget whose answers do not count (`printed`) is no target."""
        found = self.found
        target = found.best if found and self._counts(found) else None
        return Record(
            question=self.question,
            vanilla=self.vanilla,
            attempts=tuple(self.attempts),
            budget=found.budget if found else None,
            target=target,
            reason=None if target else self._reason(),
        )

    def _counts(self, attempt: Attempt) -> bool:
        return self.right(sum(answer.usable for answer in attempt.answers), len(attempt.answers))

    def _go_on(self, attempt: Attempt | None) -> None:
        try:
            self.wanted = self.steps.send(attempt)  # type: ignore[arg-type]
        except StopIteration as end:
            self.wanted, self.found = None, end.value

    def _reason(self) -> str:
        if self._counts(self.vanilla):
            return "no feasible budget" if self.found is None else "the searched budget failed"
        return "vanilla answer cut off" if self.vanilla.best.finish == "length" else "vanilla answer wrong"


def _ask(
    engine: Engine, asked: list[tuple[Question, int | None]], sampling: Sampling, samples: int, label: str
) -> list[Attempt]:
    """One attempt for each (question, budget), `samples` answers in each; feasibility is the caller's to judge."""
    requests = [
        Request(prompts.vanilla(question) if budget is None else prompts.budgeted(question, budget), sample)
        for question, budget in asked
        for sample in range(samples)
    ]
    completions = complete(engine, requests, sampling, label)
    answers = [answer(completion, asked[i // samples][0]) for i, completion in enumerate(completions)]
    return [
        Attempt(budget, tuple(answers[i * samples : (i + 1) * samples]), feasible=False)
        for i, (_, budget) in enumerate(asked)
    ]


def answer(completion: Completion, question: Question) -> Answer:
    """A completion with its grade."""
    verdict = grade(completion.text, question, completion.truncated)
    return Answer(completion.text, completion.tokens, completion.finish, verdict.correct, verdict.value, verdict.via)
