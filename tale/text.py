"""Texts from elsewhere (names, replies, servers' words) where a person reads them: they steer no terminal."""

from __future__ import annotations

import logging
import re

LOG = logging.getLogger("tale")  # as a library, silent below warnings, until its user sets logging up
# Control characters but tab and newline; line separators; what turns the direction of writing; half characters; and
# what is no character at all.
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
SHOWN = 60  # characters of a name in a progress bar, a legend or a title


def printable(text: object, most: int | None = None) -> str:
    r"""One line that does nothing but stand there: an escape character becomes `\x1b`, a newline `\n`.

    A text of more than `most` characters is cut there, with a `…`.
    """
    line = in_lines(text).replace("\n", r"\n")
    return line if most is None or len(line) <= most else f"{line[:most]}…"


def in_lines(text: object) -> str:
    """The same of a text that has lines of its own."""
    return STEERING.sub(lambda found: found.group().encode("unicode_escape").decode(), str(text))


def say(*lines: object) -> None:
    """Log these lines, for who follows a run."""
    LOG.info("\n".join(map(printable, lines)))


def warn(*lines: object) -> None:
    """Log these lines, for who would not expect them."""
    LOG.warning("\n".join(map(printable, lines)))


class Terminal(logging.Handler):
    """Prints what is logged at once. Unlike with logging's own handlers, an output that cannot be written raises."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message."""
        print(record.getMessage(), flush=True)


def log_to_terminal(level: str) -> None:
    """Show what this package logs, from a level on: "debug", "info", "warning" or "error"."""
    LOG.handlers, LOG.propagate = [Terminal()], False
    LOG.setLevel(level.upper())
