"""The search as a solver for one question, and run concurrently for many.

An answer is feasible iff right, not cut off, and cheaper than its strategy's limit. With several samples `acceptance`
decides whether a budget is answered right; the shortest right sample is then its answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

from tale.data import prompts
from tale.data.question import Question
from tale.data.records import Answer, Attempt, Record
from tale.grading import grade
from tale.inference import Completion, Engine, Request, Sampling
from tale.inference.scheduler import Solver, solve
from tale.search.strategies import TRUNCATING, BudgetSearch, greedy
from tale.statistics import wilson

# From the numbers of right answers and of samples to whether the budget counts as answered right.
ACCEPTANCE: dict[str, Callable[[int, int], bool]] = {
    "any": lambda right, samples: right > 0,
    "majority": lambda right, samples: right > samples / 2,
    "confident": lambda right, samples: wilson(right, samples)[0] > 0.5,
}


@dataclass(frozen=True)
class QuestionSearch:
    """The search of a question, with its options.

    A question whose vanilla answer is wrong or cut off is searched only with `search_wrong`, one whose answer was
    filtered never. A failed answer ends the search without a target. With `full_answers` every answer has the
    sampling's `max_tokens`; otherwise, if strategy and acceptance allow it, only as many as could be feasible.
    """

    sampling: Sampling
    tokenizer: str
    samples: int = 1
    strategy: Callable[[Attempt], BudgetSearch] = greedy
    acceptance: str = "any"
    search_wrong: bool = False
    budget_line: str | None = None
    tokenizer_hash: str | None = None
    full_answers: bool = False

    def solve(self, question: Question) -> Solver[Record]:
        """Ask the vanilla prompt, then one budget after another; return the record."""
        vanilla = yield from self._asked(question, None, math.inf)
        attempts: list[Attempt] = []
        found = None
        if not vanilla.error and (self._counts(vanilla) or self._searched_though_wrong(vanilla)):
            found = yield from self._searched(question, vanilla, attempts)
        target = found.best if found and self._counts(found) else None  # `algorithm1_verbatim` may return a failed one
        return Record(
            question=question,
            vanilla=vanilla,
            attempts=tuple(attempts),
            budget=found.budget if found else None,
            target=target,
            reason=None if target else self._reason(vanilla, attempts, found),
            sampling=self.sampling,
            tokenizer=self.tokenizer,
            budget_line=self.budget_line,
            tokenizer_hash=self.tokenizer_hash,
            vanilla_wrong=bool(attempts) and not self._counts(vanilla),
        )

    def _searched(self, question: Question, vanilla: Attempt, attempts: list[Attempt]) -> Solver[Attempt | None]:
        """The attempt that the strategy returns; all attempts are appended to `attempts`."""
        steps, attempt = self.strategy(vanilla), None
        while True:
            try:
                budget, limit = steps.send(attempt)  # type: ignore[arg-type]
            except StopIteration as end:
                return end.value
            attempt = yield from self._asked(question, budget, limit)
            attempt = replace(attempt, feasible=self._counts(attempt) and attempt.best.tokens < limit)
            attempts.append(attempt)
            if attempt.error:
                return None

    def _asked(self, question: Question, budget: int | None, limit: float) -> Solver[Attempt]:
        """The answers under a budget (None: vanilla), feasibility not yet decided; `limit`: tokens, exclusive."""
        sampling = self.sampling
        if self.strategy in TRUNCATING and (self.samples == 1 or self.acceptance == "any") and not self.full_answers:
            # One token more than can be feasible: some servers call an end at the last allowed token "length".
            sampling = replace(sampling, max_tokens=int(min(sampling.max_tokens, limit)))
        prompt = prompts.chain_of_thought(question, budget, self.budget_line)
        completions = yield [Request.user(prompt, sampling, sample) for sample in range(self.samples)]
        answers = tuple(graded_answer(completion, question) for completion in completions)
        cut_at = sampling.max_tokens if sampling != self.sampling else None
        return Attempt(budget, answers, feasible=False, limit=cut_at)

    def _counts(self, attempt: Attempt) -> bool:
        return ACCEPTANCE[self.acceptance](sum(answer.usable for answer in attempt.answers), len(attempt.answers))

    def _searched_though_wrong(self, vanilla: Attempt) -> bool:
        return self.search_wrong and vanilla.best.finish != "content_filter"

    def _reason(self, vanilla: Attempt, attempts: Sequence[Attempt], found: Attempt | None) -> str:
        if any(attempt.error for attempt in (vanilla, *attempts)):
            return "not answered"
        missing = "no feasible budget" if found is None else "the searched budget failed"
        if self._counts(vanilla):
            return missing
        cut = {"length": "vanilla answer cut off", "content_filter": "vanilla answer filtered"}
        reason = cut.get(vanilla.best.finish, "vanilla answer wrong")
        return f"{reason}, {missing}" if attempts else reason


def search(
    questions: Sequence[Question],
    engine: Engine,
    sampling: Sampling,
    max_in_flight: int = 256,
    on_completion: Callable[[int], object] = lambda _: None,
    **how: object,
) -> Generator[Record, None, None]:
    """Search `max_in_flight` questions at the same time; yield their records in the order given.

    `how`: fields of `QuestionSearch`. After each completion `on_completion` gets the number of questions done.
    """
    each = QuestionSearch(sampling, engine.tokenizer, **how)  # type: ignore[arg-type]
    return solve(map(each.solve, questions), engine, max_in_flight, on_completion)


def graded_answer(completion: Completion, question: Question) -> Answer:
    """Grade a completion."""
    verdict = grade(completion.text, question, completion.truncated)
    graded = verdict.correct, verdict.value, "reasoning" if completion.reasoning_only else verdict.via
    return Answer(completion.text, completion.tokens, completion.finish, *graded, completion.error, completion.ids)
