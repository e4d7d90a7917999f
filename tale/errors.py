"""The one exception for what a person can fix: scripts print it alone and exit with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TypeVar

from tale.secrets import veiled
from tale.text import printable

Value = TypeVar("Value")


class UserError(ValueError):
    """Bad input. The message names the file, line or key, and the remedy: one line, printable, without secrets."""

    def __init__(self, message: object):
        super().__init__(printable(veiled(str(message))))


def nearest(name: str, names: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for the known name nearest to `name`, or an empty string."""
    match = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" Did you mean {match[0]!r}?" if match else ""


def known(value: Value | None) -> Value:
    """A value that is never missing where this is called; an assertion, where the type alone does not say so."""
    assert value is not None
    return value
