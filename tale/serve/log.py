"""The request log: a line of JSON for each request, without texts unless the recipe asks for them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tale.serve.budget import Arm, Source
from tale.storage.strict_json import Count, PositiveInt, Seconds, read_jsonl

FILE = "requests.jsonl"
# done: the whole answer was passed on; refused: by the proxy; failed: the upstream gave none, or not the whole one.
Outcome = Literal["done", "refused", "failed", "timed out", "client left"]


@dataclass
class RequestRow:
    """One request. `used` counts the answer's tokens, by its usage or, in a stream without one, by its events.

    `tokens` of the estimator's own call come on top. `key` is the question's hash (`tale.serve.control`).
    """

    time: Seconds = field(default_factory=time.time)  # seconds since 1970
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:16])
    route: str = "other"
    arm: Arm = "unchanged"
    outcome: Outcome = "failed"
    status: Count | None = None
    reason: str | None = None
    source: Source | None = None
    key: str | None = None
    model: str | None = None
    stream: bool = False
    asked: PositiveInt | None = None
    limit: PositiveInt | None = None
    prompt_tokens: Count | None = None
    used: Count | None = None
    counted: Literal["usage", "events"] | None = None
    estimator_prompt_tokens: Count = 0
    estimator_tokens: Count = 0
    finish: str | None = None
    limit_fired: bool = False
    retried: bool = False
    first_byte: Seconds | None = None  # seconds from the request to the answer's first byte
    seconds: Seconds = 0.0
    messages: str | None = None  # as JSON
    answer: str | None = None

    @property
    def counts(self) -> bool:
        """Whether its tokens are known and those of a whole answer, so that it is compared with others."""
        return self.outcome == "done" and self.status == 200 and self.used is not None

    @property
    def spent(self) -> int:
        """Output tokens of the answer and of the estimator."""
        return (self.used or 0) + self.estimator_tokens


def read_log(path: Path) -> Iterator[RequestRow]:
    """The rows of a log, which may be growing.

    Raises:
        UserError: it cannot be read, or a line is not a request's.
    """
    for _, row in read_jsonl(path, RequestRow, "a request of a proxy", "remove this line", growing=True):
        yield row
