"""What a failed call says about: its question, the way it was asked, or the server."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tale.inference.requests import Completion

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAIError

REFUSED = (400, 413, 422, 451)  # statuses of one call; other questions may be answered
PASSING = (408, 409, 429)  # and every 5xx: a later call may be answered
FILTERS = {"content_filter", "content_filtered", "content_policy_violation", "responsibleaipolicyviolation",
           "data_inspection_failed", "moderation_blocked"}  # fmt: skip
OPTIONAL = ("seed", "temperature")  # what a call can do without
FEW = 5  # questions


def filtered(error: OpenAIError) -> bool:
    """Whether a content filter is the reason, as Azure, OpenAI and others say it."""
    said = getattr(error, "body", None)
    body = said if isinstance(said, dict) else {}
    parts = [part for part in (body, body.get("innererror")) if isinstance(part, dict)]
    return any(str(part.get(name)).lower() in FILTERS for part in parts for name in ("code", "type"))


def asked_otherwise(options: Mapping[str, Any], error: APIStatusError) -> dict[str, Any] | None:
    """The call without what the refusal names: the limit's older name, or an option; None where it names none of it."""
    said = error.response.text
    if error.status_code not in REFUSED:
        return None
    if "max_tokens" in options and "max_completion_tokens" in said:
        return {("max_completion_tokens" if name == "max_tokens" else name): of for name, of in options.items()}
    named = {name for name in OPTIONAL if name in options and re.search(rf"\b{name}\b", said)}
    return {name: of for name, of in options.items() if name not in named} if named else None


def passing(error: OpenAIError) -> bool:
    """Whether a later call, or one for another question, may be answered: after 5xx, a time-out, a useless reply."""
    from httpx2 import ConnectError
    from openai import APIConnectionError, APIStatusError

    if isinstance(error, APIStatusError):
        return error.status_code in PASSING or error.status_code >= 500
    return isinstance(error, APIConnectionError) and not isinstance(error.__cause__, ConnectError)


def refused(error: OpenAIError) -> bool:
    """Whether the server has refused this call alone."""
    return getattr(error, "status_code", None) in REFUSED


@dataclass
class Unanswered:
    """Questions without an answer, to tell a question's fault from the server's.

    A refusal is its question's, unless no question was ever answered and all are refused in the same way. A failure
    that may pass is its question's, too, unless `FEW` questions fail one after the other, or none is ever answered.
    """

    answered: bool = False
    said: str = ""  # of the last one
    ways: dict[str, str] = field(default_factory=dict)  # by prompt, without numbers; as long as nothing was answered
    failed: set[str] = field(default_factory=set)  # prompts since the last answer

    def note(self, prompt: str, completions: Sequence[Completion], passing: bool) -> None:
        """Take in what came of a call."""
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
        """Whether nothing was ever answered, and that is the server's fault."""
        return not self.answered and (bool(self.failed) or len(set(self.ways.values())) == 1)

    @property
    def hopeless(self) -> bool:
        """Whether these are enough questions to ask no further one."""
        return len(self.failed) >= FEW or (self.all and len(self.ways) >= FEW)

    @property
    def verdict(self) -> str | None:
        """Why the run ends, in the server's words; None where what is missing is its questions' fault."""
        if self.all:
            return self.said + (f", and so for every question ({len(self.ways)})" if len(self.ways) > 1 else "")
        return f"{self.said}, and so for {len(self.failed)} questions in a row" if self.hopeless else None
