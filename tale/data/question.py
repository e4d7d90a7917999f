"""A question with its gold answer: what every benchmark is turned into."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["number", "choice", "text"]
Language = Literal["en", "zh"]

CONTEXT_CHARS = 60


@dataclass(frozen=True)
class Question:
    """One question of a benchmark.

    `gold` is the exact string of the answer ("2,125", "-0.5", "3/4"; a letter for `kind="choice"`, a reference for
    `kind="text"`): it is never parsed into a float, so nothing can be truncated. `id` is unique in its benchmark and
    stable.
    """

    id: str
    text: str
    gold: str
    kind: Kind = "number"
    language: Language = "en"
    options: tuple[str, ...] = ()

    @property
    def question_hash(self) -> str:
        """Identity of the whole question, options included, after normalising case, space and punctuation."""
        return _digest(_normalise(" ".join((self.text, *self.options))))

    @property
    def context_hash(self) -> str:
        """Identity of the opening: questions about the same story share it (GSM8K-Zero reuses GSM8K's stories)."""
        return _digest(_normalise(self.text)[:CONTEXT_CHARS])


def _normalise(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text.casefold()).strip()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
