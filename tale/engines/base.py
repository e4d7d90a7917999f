"""What every engine takes and gives."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Protocol

from msgspec import Meta
from tqdm import tqdm

from tale.reading import Count, Positive
from tale.text import SHOWN, printable

Finish = Literal["stop", "length", "content_filter", "error"]


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn. Temperature 0 is greedy decoding, where the seed plays no part."""

    max_tokens: Positive
    temperature: Annotated[float, Meta(ge=0)] = 0.0
    seed: int = 1024


@dataclass(frozen=True)
class Request:
    """One prompt (the user turn, before the chat template); `sample` tells apart several draws of the same prompt.

    `own_seed` stands in for the sampling's, so that requests of several seeds go into one pass.
    """

    prompt: str
    sample: int = 0
    own_seed: int | None = None

    def under(self, sampling: Sampling) -> Sampling:
        """The sampling as it is for this request."""
        return sampling if self.own_seed is None else replace(sampling, seed=self.own_seed)

    def seed(self, sampling: Sampling) -> int:
        """The seed of this draw alone, below 2**56: what else is generated, and in which order, changes nothing."""
        digest = hashlib.sha256(f"{self.under(sampling).seed}\n{self.sample}\n{self.prompt}".encode()).digest()
        return int.from_bytes(digest[:7], "big")


@dataclass(frozen=True)
class Completion:
    """One answer. `tokens` counts generated ids in the engine's tokenizer, the end-of-sequence id included.

    `cached_tokens` of the prompt were not computed anew, and `reasoning_tokens` of `tokens` are not in the text: what
    an endpoint reports, 0 where it does not. `ids` are the generated ones, an end-of-sequence id included; an endpoint
    has none. With finish "error" there is no answer, and `error` says why: the prompt is too long, or a server refused
    it.
    """

    text: str
    tokens: Count
    finish: Finish
    prompt_tokens: Count
    cached_tokens: Count = 0
    reasoning_tokens: Count = 0
    error: str | None = None
    ids: tuple[Count, ...] | None = None

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


def nothing() -> Sequence[Request]:
    """No further requests."""
    return ()


class Engine(Protocol):
    """Anything that generates. `tokenizer` names what its tokens are counted with."""

    tokenizer: str

    def generate(self, requests: Sequence[Request], sampling: Sampling, more: More = nothing) -> Answers:
        """Yield `(index into requests, completion)` in whatever order they are done.

        An engine that has room may call `more` for further requests, whose indices go on from the last; it need not.
        Closing the generator cancels the calls in flight; whoever takes from it closes it (`contextlib.closing`).
        """
        ...


def complete(engine: Engine, requests: Sequence[Request], sampling: Sampling, label: str) -> list[Completion]:
    """One completion for each request, in the order given, with a progress bar."""
    with closing(engine.generate(requests, sampling)) as answers:
        done = dict(tqdm(answers, total=len(requests), desc=printable(label, SHOWN), unit="answer"))
    return [done[i] for i in range(len(requests))]
