"""An engine whose replies a test writes, and small makers of what it takes and gives."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from tale.data import prompts
from tale.data.question import Question
from tale.inference import Completion, Request, Sampling
from tale.inference.requests import CompletionStream, Engine, RequestSource, request_source

GREEDY = Sampling(max_tokens=512)
BUDGET = re.compile(r"use less than (\d+) tokens:\n\Z")
BRIEFLY = "Be brief and use less than {budget} tokens:"  # another way to ask for a budget than the paper's


@dataclass(frozen=True)
class Asked:
    """A prompt taken apart again: whose question, in which way, under which budget."""

    question: Question
    way: str
    budget: int | None
    sample: int


@dataclass
class FakeEngine:
    """Answers with `reply(asked)`, last request first; killed after `dies_after` answers. `calls`: what it answered.

    An answer that is longer than its request's limit is cut off there. Further requests are taken after every answer
    (`eager`), or once all those at hand are answered.
    """

    questions: Sequence[Question]
    reply: Callable[[Asked], Completion]
    dies_after: int | None = None
    eager: bool = False
    budget_line: str | None = None
    tokenizer: str = "fake"
    calls: list[Asked] = field(default_factory=list)

    def generate(self, more: RequestSource) -> Iterator[tuple[int, Completion]]:
        waiting: list[tuple[int, Request]] = []
        numbers = count()
        while True:
            if self.eager or not waiting:
                waiting += ((next(numbers), request) for request in more())
            if not waiting:
                return
            if len(self.calls) == self.dies_after:
                raise KeyboardInterrupt
            i, request = waiting.pop()
            asked = self._asked(request)
            self.calls.append(asked)
            yield i, cut(self.reply(asked), request.sampling.max_tokens)

    def _asked(self, request: Request) -> Asked:
        prompt = request.prompt
        budget = int(match.group(1)) if (match := BUDGET.search(prompt)) else None
        for question in self.questions:
            ways = {
                prompts.vanilla(question): "vanilla",
                prompts.direct(question): "direct",
                prompts.estimate(question): "estimate",
            }
            if budget is not None:
                ways[prompts.budgeted(question, budget, self.budget_line)] = "budget"
            if prompt in ways:
                return Asked(question, ways[prompt], budget, request.sample)
        raise AssertionError(f"none of the questions is asked by {prompt!r}")


def questions(number: int, gold: str = "7") -> list[Question]:
    """Number questions "q/0", "q/1", … about different stories."""
    return [
        Question(f"q/{i}", f"Story {i}: Tom has some pens. How many pens does Tom have?", gold) for i in range(number)
    ]


def said(text: str, tokens: int, finish: str = "stop", prompt_tokens: int = 10) -> Completion:
    """A completion."""
    return Completion(text, tokens, finish, prompt_tokens)


def right(tokens: int, finish: str = "stop") -> Completion:
    """A completion with the gold of `questions`."""
    return said(f"{tokens} tokens long. Answer: [[7]]", tokens, finish)


def wrong(tokens: int) -> Completion:
    """A completion with another number."""
    return said(f"{tokens} tokens long. Answer: [[8]]", tokens)


def cut(completion: Completion, limit: int) -> Completion:
    """A completion as it is where it may have so many tokens."""
    if completion.tokens <= limit:
        return completion
    return replace(completion, text=completion.text[: limit // 4], tokens=limit, finish="length", ids=None)


def ask(prompt: str, sample: int = 0, sampling: Sampling = GREEDY) -> Request:
    """A request of one user turn."""
    return Request.user(prompt, sampling, sample)


def generate(engine: Engine, requests: Sequence[Request], sampling: Sampling | None = None) -> CompletionStream:
    """What an engine generates for these requests, under another sampling where one is given."""
    return engine.generate(request_source([replace(r, sampling=sampling) if sampling else r for r in requests]))
