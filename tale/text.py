"""Showing and logging texts from elsewhere (names, replies, servers' messages) without control characters."""

from __future__ import annotations

import logging
import re

LOG = logging.getLogger("tale")  # used as a library, it shows only warnings until logging is configured
# Control characters except tab and newline; line separators; bidirectional controls; lone surrogates; non-characters.
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
SHOWN = 60  # characters of a name in a progress bar, a legend or a title


def printable(text: object, most: int | None = None) -> str:
    r"""The text on one line without control characters: an escape becomes `\x1b`, a newline `\n`.

    A text of more than `most` characters is cut off, with a `…`.
    """
    line = printable_lines(text).replace("\n", r"\n")
    return line if most is None or len(line) <= most else f"{line[:most]}…"


def printable_lines(text: object) -> str:
    """The same for a text of several lines."""
    return STEERING.sub(lambda found: found.group().encode("unicode_escape").decode(), str(text))


def log_info(*lines: object) -> None:
    """Log these lines at level info."""
    LOG.info("\n".join(map(printable, lines)))


def log_warning(*lines: object) -> None:
    """Log these lines at level warning."""
    LOG.warning("\n".join(map(printable, lines)))


class Terminal(logging.Handler):
    """Prints messages immediately. Unlike logging's own handlers, it raises if the output cannot be written."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message."""
        print(record.getMessage(), flush=True)


def log_to_terminal(level: str) -> None:
    """Print this package's log from a level on: "debug", "info", "warning" or "error"."""
    LOG.handlers, LOG.propagate = [Terminal()], False
    LOG.setLevel(level.upper())
