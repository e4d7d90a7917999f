"""Reading an answer that passes, whole or streamed: its tokens, its end, and what the proxy adds to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tale.inference.openai.response import FINISHES

LONGEST_LINE = 2**20  # bytes of a stream's line that is read; a longer one passes unread
DATA = b"data:"


@dataclass
class Answer:
    """What is known of an answer, from its JSON object or from the events of its stream."""

    prompt_tokens: int | None = None
    tokens: int | None = None  # as the usage reports them
    finish: str | None = None
    pieces: int = 0  # events with text or reasoning
    has_text: bool = False  # beside reasoning
    texts: list[str] | None = None  # collected where they are to be logged

    def note(self, document: Mapping[str, Any]) -> None:
        """Take what an object of the answer tells."""
        usage = document.get("usage")
        if isinstance(usage, dict):
            self.prompt_tokens = _count(usage.get("prompt_tokens"), self.prompt_tokens)
            self.tokens = _count(usage.get("completion_tokens"), self.tokens)
        choices = document.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                self._note_choice(choice)

    @property
    def used(self) -> int | None:
        """The answer's tokens: of its usage, else one for each event with text."""
        return self.pieces or None if self.tokens is None else self.tokens

    @property
    def cut_empty(self) -> bool:
        """Whether the limit ended the answer before its first word."""
        return self.finish == "length" and not self.has_text

    def _note_choice(self, choice: Mapping[str, Any]) -> None:
        message = choice.get("delta") or choice.get("message") or {}
        if not isinstance(message, dict):
            return
        said = [message.get(name) for name in ("content", "refusal", "tool_calls", "function_call")]
        thought = message.get("reasoning") or message.get("reasoning_content")
        self.has_text |= any(part.strip() if isinstance(part, str) else part for part in said)
        self.pieces += bool(any(said) or thought)
        if self.texts is not None:
            self.texts += [part for part in said if isinstance(part, str)]
        if (finish := choice.get("finish_reason")) is not None:
            self.finish = FINISHES.get(str(finish).lower().replace("-", "_"), str(finish)[:20])


@dataclass
class EventReader:
    """Reads a stream of server-sent events, chunk by chunk.

    `change` gets each event's object, and returns another in its place or None. With `hold` set, what follows is kept
    in `held` instead of passed on.
    """

    change: Callable[[dict[str, Any]], dict[str, Any] | None]
    rest: bytes = b""
    hold: bool = False
    held: list[bytes] = field(default_factory=list)

    def feed(self, chunk: bytes) -> bytes:
        """The lines that this chunk completes, to be passed on."""
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        passed = b"".join(self._passed(self._read(line) + b"\n") for line in lines)
        return passed + (self.end() if len(self.rest) > LONGEST_LINE else b"")

    def end(self) -> bytes:
        """What is left of a stream that ended within a line."""
        rest, self.rest = self.rest, b""
        return self._passed(rest)

    def _read(self, line: bytes) -> bytes:
        document = parsed(line[len(DATA) :]) if line.startswith(DATA) else None
        other = self.change(document) if document is not None else None
        if other is None:
            return line
        return DATA + b" " + dumped(other) + (b"\r" if line.endswith(b"\r") else b"")

    def _passed(self, line: bytes) -> bytes:
        if self.hold:
            self.held.append(line)
            return b""
        return line


def parsed(content: bytes) -> dict[str, Any] | None:
    """A JSON object; None if it is none."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def dumped(document: Mapping[str, Any]) -> bytes:
    """An object as JSON, in ASCII, so that half characters stay what they are."""
    return json.dumps(document, separators=(",", ":")).encode()


def extended(document: dict[str, Any], extension: Mapping[str, Any], prompt_tokens: int, tokens: int) -> dict[str, Any]:
    """The object with the extension field `tale`, and with the tokens of other calls added to its usage."""
    made = {**document, "tale": extension}
    if isinstance(usage := document.get("usage"), dict):
        more = {"prompt_tokens": prompt_tokens, "completion_tokens": tokens, "total_tokens": prompt_tokens + tokens}
        made["usage"] = {
            name: value + more.get(name, 0) if type(value) is int else value for name, value in usage.items()
        }
    return made


def _count(value: Any, otherwise: int | None) -> int | None:
    return value if type(value) is int and 0 <= value <= 10**9 else otherwise
