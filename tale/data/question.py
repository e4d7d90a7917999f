"""A question with its gold answer: the common form of all benchmarks."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

Kind = Literal["number", "choice", "text"]
Language = Literal["en", "zh"]
# The metric of each kind of question: accuracy, or the mean of a score from 0 to 1 of every answer.
METRIC_OF: dict[Kind, str] = {"number": "accuracy", "choice": "accuracy", "text": "bleu"}
METRICS = tuple(dict.fromkeys(METRIC_OF.values()))

CONTEXT_CHARS = 60
# Version of the definition of `question_hash`; a card with hashes of another version would match nothing.
HASH_VERSION = 2


@dataclass(frozen=True)
class Question:
    """One question of a benchmark.

    `gold` is the exact string of the answer ("2,125", "-0.5", "3/4"; a letter for `kind="choice"`, a reference text for
    `kind="text"`): it is never parsed into a float, so nothing is rounded. `id` is unique in its benchmark and stable.
    """

    id: str
    text: str
    gold: str
    kind: Kind = "number"
    language: Language = "en"
    options: tuple[str, ...] = ()

    @property
    def metric(self) -> str:
        """The metric of its answers, one of `METRICS`."""
        return METRIC_OF[self.kind]

    @property
    def question_hash(self) -> str:
        """Hash of the whole question, options included; every character and its case count ("5 mW", "5 MW").

        Normalised is what cannot change the meaning: the Unicode form (NFC), and the amount and kind of white space.
        """
        parts = (unicodedata.normalize("NFC", part).split() for part in (self.text, *self.options))
        return _digest("\n".join(map(" ".join, parts)))

    @property
    def context_hash(self) -> str:
        """Hash of the opening: questions about the same story share it (GSM8K-Zero reuses GSM8K's stories).

        Case, white space and punctuation do not count, as they differ between copies of a story.
        """
        return _digest(_words(self.text)[:CONTEXT_CHARS])

    @property
    def openings(self) -> tuple[str, ...]:
        """Hashes of ever longer openings: `context_hash` first, then each 60 characters longer, `question_hash` last.

        `tale.data.splits.contexts` needs the longer ones if a file's questions share a preamble.
        """
        text = _words(self.text)
        longer = range(2 * CONTEXT_CHARS, len(text) + 1, CONTEXT_CHARS)
        return (self.context_hash, *(_digest(text[:end]) for end in longer), self.question_hash)


def _words(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text.casefold()).strip()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
