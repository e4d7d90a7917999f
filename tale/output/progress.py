"""Progress bars."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from tale.text import SHOWN, printable

MINUTE = 60.0  # seconds


def progress(label: str, of: Iterable[Any] | None = None, **how: Any) -> tqdm:
    """tqdm's bar with a label: in a file or a pipe updated once a minute."""
    if not sys.stderr.isatty():
        how |= {"mininterval": MINUTE, "maxinterval": MINUTE}
    return tqdm(of, desc=printable(label, SHOWN), **how)
