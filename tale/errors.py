"""The exception for errors that the user can fix: commands print it as one line and exit with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TypeVar

from tale.secrets import redact
from tale.text import printable

Value = TypeVar("Value")


class UserError(ValueError):
    """Bad input. The message names the file, line or key, and the remedy: one line, printable, without secrets."""

    def __init__(self, message: object):
        super().__init__(printable(redact(str(message))))


def nearest(name: str, names: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` with the known name most similar to `name`, or an empty string."""
    match = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" Did you mean {match[0]!r}?" if match else ""


def not_none(value: Value | None) -> Value:
    """The value, asserted not to be None, for the type checker."""
    assert value is not None
    return value
