"""What every engine takes and gives."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from tale.data.prompts import Message
from tale.data.records import Finish, Sampling
from tale.output.progress import progress
from tale.storage.strict_json import Count


@dataclass(frozen=True)
class Request:
    """A conversation to be answered, with its own limits.

    The last message is the user's, or an assistant's, which is then continued. `sample` tells apart several draws of
    the same conversation. `stop`: the answer ends before the first of these strings. `logprobs`: the completion has the
    log-probability of each of its tokens, by the model itself (temperature 1).
    """

    messages: tuple[Message, ...]
    sampling: Sampling
    sample: int = 0
    stop: tuple[str, ...] = ()
    logprobs: bool = False

    @classmethod
    def user(cls, prompt: str, sampling: Sampling, sample: int = 0) -> Request:
        """One user turn."""
        return cls((Message("user", prompt),), sampling, sample)

    @property
    def continues(self) -> bool:
        """Whether an assistant's turn was left open."""
        return self.messages[-1].role == "assistant"

    @property
    def prompt(self) -> str:
        """The user's text where it is all that is asked, else the conversation as JSON."""
        if len(self.messages) == 1 and self.messages[0].role == "user":
            return self.messages[0].content
        return json.dumps([[message.role, message.content] for message in self.messages], ensure_ascii=False)

    @property
    def draw_seed(self) -> int:
        """The seed of this draw alone, below 2**56: what else is generated, and in which order, changes nothing."""
        digest = hashlib.sha256(f"{self.sampling.seed}\n{self.sample}\n{self.prompt}".encode()).digest()
        return int.from_bytes(digest[:7], "big")


@dataclass(frozen=True)
class Completion:
    """One answer. `tokens` counts generated ids in the engine's tokenizer, the end-of-sequence id included.

    Special tokens inside the text stay in it. `cached_tokens` of the prompt were not computed again, and
    `reasoning_tokens` of `tokens` are not in the text: what an endpoint reports, 0 where it does not. `ids` are the
    generated ones, an end-of-sequence id or the tokens of a stop string included; an endpoint has none. `logprobs`: one
    for each token, where the request asks for them. With finish "error" there is no answer, and `error` says why: the
    prompt is too long, or a server refused it.
    """

    text: str
    tokens: Count
    finish: Finish
    prompt_tokens: Count
    cached_tokens: Count = 0
    reasoning_tokens: Count = 0
    error: str | None = None
    ids: tuple[Count, ...] | None = None
    logprobs: tuple[float, ...] | None = None

    @classmethod
    def refused(cls, why: str) -> Completion:
        """No answer to a prompt that cannot be answered."""
        return cls("", 0, "error", 0, error=why)

    @property
    def truncated(self) -> bool:
        """Whether the limit, or an endpoint's filter, cut the answer off, or there is none."""
        return self.finish != "stop"

    @property
    def reasoned_alone(self) -> bool:
        """Whether all that was generated is reasoning, and no answer followed."""
        return not self.text and self.reasoning_tokens > 0


More = Callable[[], Sequence[Request]]
Answers = Generator[tuple[int, Completion], None, None]


class Engine(Protocol):
    """Anything that generates. `tokenizer` names what its tokens are counted with."""

    tokenizer: str

    def generate(self, more: More) -> Answers:
        """Yield `(number, completion)` as each is done; numbers count the requests in the order that `more` gave them.

        `more` gives the requests that can be asked by now, each once, and none while they depend on answers that are
        still to come. It is called at the start, and whenever there is room for another request. The generator ends
        where `more` gives none and nothing is being generated. Closing it cancels the calls in flight; whoever takes
        from it closes it (`contextlib.closing`).
        """
        ...


def once(requests: Sequence[Request], more: More = tuple) -> More:
    """These requests, and after them what `more` gives: by itself, nothing."""
    left = [requests]
    return lambda: left.pop() if left else more()


def each(more: More) -> Iterator[Request]:
    """One request after the other, for an engine that answers them so."""
    while requests := more():
        yield from requests


def complete(engine: Engine, requests: Sequence[Request], label: str) -> list[Completion]:
    """One completion for each request, in the order given, with a progress bar."""
    with closing(engine.generate(once(requests))) as answers:
        done = dict(progress(label, answers, total=len(requests), unit="answer"))
    return [done[i] for i in range(len(requests))]
