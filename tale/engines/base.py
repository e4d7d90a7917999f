"""What every engine takes and gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tqdm import tqdm


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn. Temperature 0 is greedy decoding, where the seed plays no part."""

    max_tokens: int
    temperature: float = 0.0
    seed: int = 1024


@dataclass(frozen=True)
class Request:
    """One prompt (the user turn, before the chat template); `sample` tells apart several draws of the same prompt."""

    prompt: str
    sample: int = 0


@dataclass(frozen=True)
class Completion:
    """One answer. `tokens` counts generated ids in the model's own tokenizer, the end-of-sequence id included."""

    text: str
    tokens: int
    finish: Literal["stop", "length"]
    prompt_tokens: int

    @property
    def truncated(self) -> bool:
        """Whether the limit cut the answer off."""
        return self.finish == "length"


class Engine(Protocol):
    """Anything that generates."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """Yield `(index into requests, completion)` in whatever order they are done."""
        ...


def complete(engine: Engine, requests: Sequence[Request], sampling: Sampling, label: str) -> list[Completion]:
    """One completion for each request, in the order given, with a progress bar."""
    done = dict(tqdm(engine.generate(requests, sampling), total=len(requests), desc=label, unit="answer"))
    return [done[i] for i in range(len(requests))]
