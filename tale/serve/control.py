"""The control group: a share of questions, drawn by a seeded hash, whose requests pass unchanged."""

from __future__ import annotations

import hashlib


def question_key(seed: int, model: str, question: str) -> str:
    """A question's key in log and control group: a hash of seed, model and text, 16 hexadecimal digits."""
    return hashlib.sha256(f"{seed}\n{model}\n{question}".encode(errors="surrogatepass")).hexdigest()[:16]


def in_control(key: str, share: float) -> bool:
    """Whether a question belongs to the control group of this share.

    All requests with a question are on the same side, so that a client's repetition cannot change it.
    """
    return int(key[:13], 16) / 2**52 < share
