"""Requests, completions, and the interface of engines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol

from tale.data.prompts import Message
from tale.data.records import FinishReason, Sampling
from tale.output.progress import progress
from tale.storage.strict_json import Count


@dataclass(frozen=True)
class Request:
    """A conversation to complete, with its sampling parameters.

    The last message is the user's, or the assistant's, which is then continued; several messages of the assistant at
    the end are the parts of its open turn. `sample` numbers the samples of a conversation. `stop`: the answer ends
    before the first of these strings. `logprobs`: the completion has the log-probability of each of its tokens under
    the model (temperature 1), or with `processed_logprobs` under what it was sampled from, the model at the sampling
    temperature. `continued`: a later request is expected to continue this answer, so that an engine may
    cache it; it changes no answer.
    """

    messages: tuple[Message, ...]
    sampling: Sampling
    sample: int = 0
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    processed_logprobs: bool = False
    continued: bool = field(default=False, compare=False)

    @classmethod
    def user(cls, prompt: str, sampling: Sampling, sample: int = 0) -> Request:
        """One user turn."""
        return cls((Message("user", prompt),), sampling, sample)

    @property
    def continues(self) -> bool:
        """Whether the last message is an open assistant turn."""
        return self.messages[-1].role == "assistant"

    @property
    def prompt(self) -> str:
        """The text of a single user turn, else the conversation as JSON, with ids where a message has them."""
        if len(self.messages) == 1 and self.messages[0].role == "user":
            return self.messages[0].content
        messages = ([value for value in vars(message).values() if value is not None] for message in self.messages)
        return json.dumps([*messages], ensure_ascii=False)

    @property
    def draw_seed(self) -> int:
        """The seed of this sample, below 2**56: independent of the other requests and their order."""
        digest = hashlib.sha256(f"{self.sampling.seed}\n{self.sample}\n{self.prompt}".encode()).digest()
        return int.from_bytes(digest[:7], "big")


@dataclass(frozen=True)
class Completion:
    """An answer. `tokens` counts generated ids in the engine's tokenizer, the end-of-sequence id included.

    Special tokens inside the text are kept. `cached_tokens` of the prompt came from a cache, and `reasoning_tokens` of
    `tokens` are not in the text, as an endpoint reports them, else 0. `ids` are the generated ids, with the
    end-of-sequence id or a stop string's tokens; None from an endpoint. `logprobs`: one per token, if requested.
    `stop_string`: the one that ended the answer, which is not in the text. With finish "error" there is no answer, and
    `error` says why: the prompt is too long, or a server refused it.
    """

    text: str
    tokens: Count
    finish: FinishReason
    prompt_tokens: Count
    cached_tokens: Count = 0
    reasoning_tokens: Count = 0
    error: str | None = None
    ids: tuple[Count, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    stop_string: str | None = None

    @classmethod
    def failed(cls, why: str) -> Completion:
        """A completion without an answer, with its error."""
        return cls("", 0, "error", 0, error=why)

    @property
    def truncated(self) -> bool:
        """Whether the limit or an endpoint's filter cut the answer off, or there is none."""
        return self.finish != "stop"

    @property
    def reasoning_only(self) -> bool:
        """Whether all generated tokens are reasoning, without an answer."""
        return not self.text and self.reasoning_tokens > 0


RequestSource = Callable[[], Sequence[Request]]
CompletionStream = Generator[tuple[int, Completion], None, None]


class Engine(Protocol):
    """Generates completions. `tokenizer` names the tokenizer that counts their tokens."""

    tokenizer: str

    def generate(self, more: RequestSource) -> CompletionStream:
        """Yield `(number, completion)` as each is done; requests are numbered in the order in which `more` gives them.

        `more` returns the requests that are ready, each once, and none while they depend on pending answers. It is
        called at the start, and whenever there is room for another request. The generator ends when `more` returns none
        and nothing is in flight. Closing it cancels the calls in flight; the consumer closes it (`contextlib.closing`).
        """
        ...


def request_source(requests: Sequence[Request], more: RequestSource = tuple) -> RequestSource:
    """A source of these requests, followed by those of `more` (default: none)."""
    left = [requests]
    return lambda: left.pop() if left else more()


def iter_requests(more: RequestSource) -> Iterator[Request]:
    """The requests one by one, for an engine that answers them in sequence."""
    while requests := more():
        yield from requests


def complete(engine: Engine, requests: Sequence[Request], label: str) -> list[Completion]:
    """One completion per request, in the order given, with a progress bar."""
    with closing(engine.generate(request_source(requests))) as answers:
        done = dict(progress(label, answers, total=len(requests), unit="answer"))
    return [done[i] for i in range(len(requests))]
