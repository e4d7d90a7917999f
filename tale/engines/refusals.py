"""What it means that a server refuses a call: of the question, of the way it is asked, or of everything."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tale.engines.base import Completion

if TYPE_CHECKING:
    from openai import APIStatusError

OF_QUESTION = (400, 413, 422, 451)  # other questions may be answered
FILTERS = {"content_filter", "content_filtered", "content_policy_violation", "responsibleaipolicyviolation",
           "data_inspection_failed", "moderation_blocked"}  # fmt: skip
OPTIONAL = ("seed", "temperature")  # what a call can do without
FEW = 5  # questions


def filtered(error: APIStatusError) -> bool:
    """Whether a content filter is the reason, as Azure, OpenAI and others say it."""
    body = error.body if isinstance(error.body, dict) else {}
    parts = [part for part in (body, body.get("innererror")) if isinstance(part, dict)]
    return any(str(part.get(name)).lower() in FILTERS for part in parts for name in ("code", "type"))


def asked_otherwise(options: Mapping[str, Any], error: APIStatusError) -> dict[str, Any] | None:
    """The call without what the refusal names: the limit's older name, or an option; None where it names none of it."""
    said = error.response.text
    if error.status_code not in OF_QUESTION:
        return None
    if "max_tokens" in options and "max_completion_tokens" in said:
        return {("max_completion_tokens" if name == "max_tokens" else name): of for name, of in options.items()}
    named = {name for name in OPTIONAL if name in options and re.search(rf"\b{name}\b", said)}
    return {name: of for name, of in options.items() if name not in named} if named else None


@dataclass
class Refusals:
    """Who was refused, and how, as long as nothing was `answered`: in the end that tells whose fault it is."""

    answered: bool = False
    said: str = ""  # by the last one
    ways: dict[str, str] = field(default_factory=dict)  # by prompt, without its numbers

    def note(self, prompt: str, completions: Sequence[Completion]) -> None:
        """What came of a call."""
        errors = [completion.error for completion in completions if completion.error]
        self.answered = self.answered or len(errors) < len(completions)
        if errors:
            self.said = errors[0]
            self.ways[prompt] = re.sub(r"\d+", "#", self.said)

    @property
    def alike(self) -> bool:
        """Whether nothing was ever answered, and every question was refused in the same way."""
        return not self.answered and len(set(self.ways.values())) == 1

    @property
    def hopeless(self) -> bool:
        """Whether these are enough questions to ask no further one."""
        return self.alike and len(self.ways) >= FEW
