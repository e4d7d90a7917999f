"""Failed calls: whether the question, the call's options or the server is at fault."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tale.inference.requests import Completion

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAIError

REJECTED = (400, 413, 422, 451)  # statuses about one call; other questions may be answered
TRANSIENT = (408, 409, 429)  # and every 5xx: a later call may be answered
FILTERS = {"content_filter", "content_filtered", "content_policy_violation", "responsibleaipolicyviolation",
           "data_inspection_failed", "moderation_blocked"}  # fmt: skip
OPTIONAL = ("seed", "temperature")  # options that can be left out
MAX_FAILURES = 5  # questions


def is_content_filter(error: OpenAIError) -> bool:
    """Whether a content filter is the reason, in the words of Azure, OpenAI and others."""
    said = getattr(error, "body", None)
    body = said if isinstance(said, dict) else {}
    parts = [part for part in (body, body.get("innererror")) if isinstance(part, dict)]
    return any(str(part.get(name)).lower() in FILTERS for part in parts for name in ("code", "type"))


def without_unsupported(options: Mapping[str, Any], error: APIStatusError) -> dict[str, Any] | None:
    """The options without those that the error names (`max_tokens` is renamed); None if it names none of them."""
    said = error.response.text
    if error.status_code not in REJECTED:
        return None
    if "max_tokens" in options and "max_completion_tokens" in said:
        return {("max_completion_tokens" if name == "max_tokens" else name): of for name, of in options.items()}
    named = {name for name in OPTIONAL if name in options and re.search(rf"\b{name}\b", said)}
    return {name: of for name, of in options.items() if name not in named} if named else None


def is_transient(error: OpenAIError) -> bool:
    """Whether a later call may succeed: after status 5xx, a time-out or an unusable response."""
    from httpx2 import ConnectError
    from openai import APIConnectionError, APIStatusError

    if isinstance(error, APIStatusError):
        return error.status_code in TRANSIENT or error.status_code >= 500
    return isinstance(error, APIConnectionError) and not isinstance(error.__cause__, ConnectError)


def is_rejected(error: OpenAIError) -> bool:
    """Whether the server rejected only this call."""
    return getattr(error, "status_code", None) in REJECTED


@dataclass
class FailureTracker:
    """Failed questions, to tell a question's fault from the server's.

    A rejection is its question's fault, unless no question was ever answered and all were rejected with the same
    message. So is a transient failure, unless `MAX_FAILURES` questions fail in a row, or no question was ever answered.
    """

    answered: bool = False
    said: str = ""  # the last error
    ways: dict[str, str] = field(default_factory=dict)  # errors by prompt, without numbers, until the first answer
    failed: set[str] = field(default_factory=set)  # prompts that failed since the last answer

    def note(self, prompt: str, completions: Sequence[Completion], passing: bool) -> None:
        """Record the outcome of a call."""
        errors = [completion.error for completion in completions if completion.error]
        if len(errors) < len(completions):
            self.answered = True
            self.failed.clear()
        if errors:
            self.said = errors[0]
            if not self.answered:
                self.ways[prompt] = re.sub(r"\d+", "#", self.said)
            if passing:
                self.failed.add(prompt)

    @property
    def all(self) -> bool:
        """Whether nothing was ever answered, and the server is at fault."""
        return not self.answered and (bool(self.failed) or len(set(self.ways.values())) == 1)

    @property
    def should_stop(self) -> bool:
        """Whether enough questions failed to make no further call."""
        return len(self.failed) >= MAX_FAILURES or (self.all and len(self.ways) >= MAX_FAILURES)

    @property
    def verdict(self) -> str | None:
        """Why the run ends, with the server's message; None if the failed questions are at fault."""
        if self.all:
            return self.said + (f", the same for every question ({len(self.ways)})" if len(self.ways) > 1 else "")
        return f"{self.said}, the same for {len(self.failed)} questions in a row" if self.should_stop else None
