"""An engine that generates a script's tokens, for strategies that continue, stop and cut answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from tale.inference import Completion, Request
from tale.inference.requests import RequestSource, iter_requests
from tale.inference.scheduler import Result, Solver
from tale.inference.stopping import stopped_answer

END = 0
WORD = re.compile(r"\s*\S+")  # a token; the white space before a word is part of it

# The whole answer to a request, or its completion as it is. The request's last message is text: parts that were
# generated after it are taken off, so that a continued answer has the script of the whole. What is no beginning of it,
# as a tree continues a step by several samples, is followed by all of it.
Script = Callable[[Request], str | Completion]


@dataclass
class TokenEngine:
    """Generates the script's words, a token each, and an end token, within the request's limit and stop strings.

    An open turn that ends in generated ids is continued where they end. `requests`: what was asked, with `completions`.
    """

    script: Script
    tokenizer: str = "words"
    words: list[str] = field(default_factory=lambda: [""])  # by id
    requests: list[Request] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)

    def generate(self, more: RequestSource) -> Iterator[tuple[int, Completion]]:
        """One request after another."""
        yield from enumerate(map(self.answer, iter_requests(more)))

    def answer(self, request: Request) -> Completion:
        """The completion of one request."""
        completion = self._answer(request)
        self.requests.append(request)
        self.completions.append(completion)
        return completion

    def run(self, solver: Solver[Result]) -> tuple[Result, list[list[tuple[Request, Completion]]]]:
        """Run one solver; its result, and the requests of each of its steps with their completions."""
        completions: list[Completion] | None = None
        steps: list[list[tuple[Request, Completion]]] = []
        while True:
            try:
                requests = solver.send(completions)
            except StopIteration as end:
                return end.value, steps
            completions = [self.answer(request) for request in requests]
            steps.append(list(zip(requests, completions, strict=True)))

    def ids(self, text: str) -> tuple[int, ...]:
        """The ids of a text."""
        found = WORD.findall(text)
        self.words += [word for word in dict.fromkeys(found) if word not in self.words]
        return tuple(self.words.index(word) for word in found)

    def decode(self, ids: Sequence[int], ends: Collection[int] = ()) -> str:
        """The text of ids."""
        return "".join(self.words[i] for i in ids)

    def _answer(self, request: Request) -> Completion:
        before, generated = list(request.messages), ()
        while before[-1].ids is not None:
            generated = (*before.pop().ids, *generated)
        whole = self.script(replace(request, messages=tuple(before)))
        if isinstance(whole, Completion):
            return whole
        ids = (*self.ids(whole), END)
        rest = ids[len(generated) :] if ids[: len(generated)] == generated != ids else ids
        answer = stopped_answer(request, rest, self, {END})
        prompt_tokens = len(generated) + sum(len(self.ids(message.content)) for message in before)
        return Completion(
            answer.text,
            len(answer.ids),
            answer.finish,
            prompt_tokens,
            ids=answer.ids,
            stop_string=answer.stop_string,
        )
