"""A question with its gold answer: what every benchmark is turned into."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

Kind = Literal["number", "choice", "text"]
Language = Literal["en", "zh"]

CONTEXT_CHARS = 60
# Which definition of `question_hash` a file's hashes have; a card of another one would match nothing.
HASHES = 2


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
        """Identity of the whole question, options included: every sign counts, in its case ("5 mW", "5 MW").

        What cannot change the meaning is normalised: the Unicode form (NFC), and the amount and kind of white space.
        """
        return _digest("\n".join(_canonical(part) for part in (self.text, *self.options)))

    @property
    def context_hash(self) -> str:
        """Identity of the opening: questions about the same story share it (GSM8K-Zero reuses GSM8K's stories).

        Case, space and punctuation do not count, since stories are retold with other ones.
        """
        return _digest(_words(self.text)[:CONTEXT_CHARS])

    @property
    def openings(self) -> tuple[str, ...]:
        """Identities of ever longer openings: `context_hash` first, then 60 characters more each, `question_hash` last.

        `tale.data.splits.contexts` needs the longer ones where a file's questions have a preamble in common.
        """
        text = _words(self.text)
        longer = range(2 * CONTEXT_CHARS, len(text) + 1, CONTEXT_CHARS)
        return (self.context_hash, *(_digest(text[:end]) for end in longer), self.question_hash)


def _canonical(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _words(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text.casefold()).strip()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
