"""The search over many questions at the same time, each at its own pace.

An answer is feasible iff right, not cut off, and cheaper than its strategy's limit. With several samples a rule decides
whether a budget is answered right; the shortest right sample is then its answer.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from itertools import count, islice

from tale import prompts
from tale.data.question import Question
from tale.engines import Completion, Engine, Request, Sampling
from tale.grading import grade
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
    search_wrong: bool = False,
    window: int = 256,
    budget_line: str | None = None,
    tokenizer_hash: str | None = None,
    answered: Callable[[int], object] = lambda _: None,
) -> Generator[Record, None, None]:
    """Search `window` questions at the same time; yield a record each, in the order given.

    As soon as a question's answers are there its next budget is ready to be asked, and the engine takes what is ready
    when it has room; a question that is done makes room for the next. After each completion `answered` is told how many
    questions are done, which are more than have been given back where an earlier one goes on.

    A question whose vanilla answer is wrong or cut off is searched with `search_wrong` alone, one whose answer was
    filtered never. Where an answer cannot be had, the question's search ends without a target.
    """
    waiting = iter(questions)
    begun: deque[_OneSearch] = deque()  # in order, until they are given back
    ready: list[tuple[_OneSearch, int]] = []
    asked: dict[int, tuple[_OneSearch, int]] = {}  # by the engine's count

    def ask(one: _OneSearch) -> None:
        ready.extend((one, sample) for sample in range(samples))

    def begin(how_many: int) -> None:
        for question in islice(waiting, how_many):
            begun.append(_OneSearch(question, samples, strategy, rule, search_wrong, budget_line))
            ask(begun[-1])

    def taken() -> list[Request]:
        requests = [Request(one.prompt, sample) for one, sample in ready]
        asked.update((i, pair) for pair, i in zip(ready, numbers, strict=False))  # `numbers` last: it has no end
        ready.clear()
        return requests

    begin(window)
    done = 0
    while ready:
        numbers = count()
        with closing(engine.generate(taken(), sampling, taken)) as answers:
            for i, completion in answers:
                one, sample = asked.pop(i)
                if one.take(sample, completion):
                    if one.done:
                        done += 1
                        begin(1)
                    else:
                        ask(one)
                answered(done)
                while begun and begun[0].done:
                    yield begun.popleft().record(sampling, engine.tokenizer, tokenizer_hash)


class _OneSearch:
    """Where one question's search stands: it waits for answers under `budget` (None: vanilla), unless it is `done`.

    An answer under a budget is feasible only below `limit` tokens.
    """

    def __init__(
        self,
        question: Question,
        samples: int,
        strategy: Callable[[Attempt], Search],
        rule: str,
        search_wrong: bool,
        line: str | None,
    ):
        self.question, self.samples, self.strategy, self.right = question, samples, strategy, RULES[rule]
        self.search_wrong, self.line = search_wrong, line
        self.answers: dict[int, Answer] = {}
        self.vanilla: Attempt | None = None
        self.attempts: list[Attempt] = []
        self.budget: int | None = None
        self.limit = math.inf
        self.done = False
        self.found: Attempt | None = None

    @property
    def prompt(self) -> str:
        """What is asked now."""
        return prompts.chain_of_thought(self.question, self.budget, self.line)

    def take(self, sample: int, completion: Completion) -> bool:
        """Grade an answer; with the last of a budget judge them, and find the next. Whether that was the last."""
        self.answers[sample] = answer(completion, self.question)
        if len(self.answers) < self.samples:
            return False
        self._advance(Attempt(self.budget, tuple(self.answers[i] for i in range(self.samples)), feasible=False))
        self.answers = {}
        return True

    def _advance(self, attempt: Attempt) -> None:
        if self.vanilla is None:
            self.vanilla = attempt
            self.done = bool(attempt.error) or not (self._counts(attempt) or self._searched_though_wrong(attempt))
            if not self.done:
                self.steps = self.strategy(attempt)
                self._go_on(None)
            return
        feasible = self._counts(attempt) and attempt.best.tokens < self.limit
        self.attempts.append(Attempt(attempt.budget, attempt.answers, feasible))
        if attempt.error:
            self.done, self.found = True, None
        else:
            self._go_on(self.attempts[-1])

    def record(self, sampling: Sampling, tokenizer: str, tokenizer_hash: str | None) -> Record:
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
            budget_line=self.line,
            tokenizer_hash=tokenizer_hash,
            vanilla_wrong=bool(self.attempts) and not self._counts(self.vanilla),
        )

    def _counts(self, attempt: Attempt) -> bool:
        return self.right(sum(answer.usable for answer in attempt.answers), len(attempt.answers))

    def _searched_though_wrong(self, vanilla: Attempt) -> bool:
        return self.search_wrong and vanilla.best.finish != "content_filter"

    def _go_on(self, attempt: Attempt | None) -> None:
        try:
            self.budget, self.limit = self.steps.send(attempt)  # type: ignore[arg-type]
        except StopIteration as end:
            self.done, self.found = True, end.value

    def _reason(self, vanilla: Attempt) -> str:
        if any(attempt.error for attempt in (vanilla, *self.attempts)):
            return "not answered"
        missing = "no feasible budget" if self.found is None else "the searched budget failed"
        if self._counts(vanilla):
            return missing
        cut = {"length": "vanilla answer cut off", "content_filter": "vanilla answer filtered"}
        reason = cut.get(vanilla.best.finish, "vanilla answer wrong")
        return f"{reason}, {missing}" if self.attempts else reason


def answer(completion: Completion, question: Question) -> Answer:
    """A completion with its grade."""
    verdict = grade(completion.text, question, completion.truncated)
    graded = verdict.correct, verdict.value, "reasoning" if completion.reasoned_alone else verdict.via
    return Answer(completion.text, completion.tokens, completion.finish, *graded, completion.error, completion.ids)
