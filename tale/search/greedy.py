"""Halving search (§4, Algorithms 1 and 2 as intended), every question advancing together.

    t0 = T_vanilla; β = t0
    loop: β' = ⌊β/2⌋; stop if β' < 1
          answer under β'; feasible iff right and cheaper than t0
          feasible: β = β', t0 = its tokens; else stop

Two slips of the printed Algorithm 1 are mended: it tests the first feasible budget twice, and returns the budget that
failed. A cut-off answer is never feasible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tale import prompts
from tale.answers import grade
from tale.data.question import Question
from tale.engines import Completion, Engine, Request, Sampling, complete
from tale.records import Answer, Attempt, Record


@dataclass
class _Progress:
    """Where one question's search stands."""

    question: Question
    vanilla: Attempt
    budget: int
    best: Answer
    attempts: list[Attempt] = field(default_factory=list)

    def advance(self, attempt: Attempt) -> None:
        self.attempts.append(attempt)
        if attempt.feasible:
            assert attempt.budget is not None
            self.budget, self.best = attempt.budget, attempt.best

    @property
    def next_budget(self) -> int | None:
        """The budget to try, or None at the end: the last one failed, or the next would be 0."""
        if self.attempts and not self.attempts[-1].feasible:
            return None
        return self.budget // 2 or None


def search(questions: Sequence[Question], engine: Engine, sampling: Sampling, samples: int = 1) -> list[Record]:
    """Search every question; a record each, in the order given.

    With `samples` above 1 the shortest right answer of that many draws counts, for the vanilla prompt too. A question
    whose vanilla answer is wrong or cut off is not searched.
    """
    vanilla = _ask(engine, [(q, None) for q in questions], sampling, samples, "vanilla")
    searches = [_begin(question, attempt) for question, attempt in zip(questions, vanilla, strict=True)]
    live = [s for s in searches if s.vanilla.best.usable]
    while live := [s for s in live if s.next_budget]:
        answered = _ask(engine, [(s.question, s.next_budget) for s in live], sampling, samples, "under budgets")
        for progress, attempt in zip(live, answered, strict=True):
            cheaper = attempt.best.usable and attempt.best.tokens < progress.best.tokens
            progress.advance(Attempt(attempt.budget, attempt.answers, cheaper))
    return [_finish(s) for s in searches]


def _begin(question: Question, vanilla: Attempt) -> _Progress:
    return _Progress(question, vanilla, budget=vanilla.best.tokens, best=vanilla.best)


def _finish(search: _Progress) -> Record:
    found = any(attempt.feasible for attempt in search.attempts)
    return Record(
        question=search.question,
        vanilla=search.vanilla,
        attempts=tuple(search.attempts),
        budget=search.budget if found else None,
        target=search.best if found else None,
        reason=None if found else _reason(search.vanilla.best),
    )


def _reason(vanilla: Answer) -> str:
    if vanilla.finish == "length":
        return "vanilla answer cut off"
    return "no feasible budget" if vanilla.correct else "vanilla answer wrong"


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
