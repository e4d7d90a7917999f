"""The one exception for what a person can fix: scripts print it alone and exit with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from tale.secrets import veiled
from tale.text import printable


class UserError(ValueError):
    """Bad input. The message names the file, line or key, and the remedy: one line, printable, without secrets."""

    def __init__(self, message: object):
        super().__init__(printable(veiled(str(message))))


def nearest(name: str, known: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for the known name closest to `name`, or an empty string."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {match[0]!r}?" if match else ""
