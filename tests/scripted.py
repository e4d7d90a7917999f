"""An engine whose replies a test writes, and small makers of what it takes and gives."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tale import prompts
from tale.data.question import Question
from tale.engines import Completion, Request, Sampling
from tale.engines.base import More, nothing

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
class ScriptedEngine:
    """Answers with `reply(asked)`, last request first; killed after `dies_after` answers. `calls`: what it answered.

    Further requests are taken while it runs (`takes_more`), or left for another call.
    """

    questions: Sequence[Question]
    reply: Callable[[Asked], Completion]
    dies_after: int | None = None
    takes_more: bool = False
    budget_line: str | None = None
    tokenizer: str = "scripted"
    calls: list[Asked] = field(default_factory=list)

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, more: More = nothing
    ) -> Iterator[tuple[int, Completion]]:
        done = 0
        while requests:
            for i in reversed(range(len(requests))):
                if len(self.calls) == self.dies_after:
                    raise KeyboardInterrupt
                asked = self._asked(requests[i])
                self.calls.append(asked)
                yield done + i, self.reply(asked)
            done += len(requests)
            requests = more() if self.takes_more else ()

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


def questions(count: int, gold: str = "7") -> list[Question]:
    """Number questions "q/0", "q/1", … about different stories."""
    return [
        Question(f"q/{i}", f"Story {i}: Tom has some pens. How many pens does Tom have?", gold) for i in range(count)
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
