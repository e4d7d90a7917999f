"""The letter that a reply chooses, and the letter that a short answer is."""

from __future__ import annotations

import re

from tale.data.question import Language
from tale.grading.text import LONGEST, fold, plain

# A letter on its own, neither the article ("A number") nor one that is ruled out ("option A is wrong").
_LONE = (
    r"([A-H])(?![A-Za-z0-9_'’])(?!\s?(?:is\s|are\s)?(?:not|wrong|incorrect|false)\b)(?!\s?是?(?:错|不))"
    r"(?!(?<=A) (?!(?:is|because|since|as|for|with)\b)[a-z])"
)
_CUE_EN = r"\b(?i:answer|choice|option)(?: (?:is|would be|must be))?:?\s?(?i:(?:option|choice) ?)?"
_CUE_ZH = r"(?<!不)(?:答案|选项|选择|选)(?:应该|应)?(?:是|为|选)?:?\s?(?:选项)?"
NAMED: dict[Language, re.Pattern[str]] = {
    "en": re.compile(rf"{_CUE_EN}[^\w.]{{0,6}}{_LONE}"),
    "zh": re.compile(rf"(?:{_CUE_EN}|{_CUE_ZH})[^\w.。]{{0,6}}{_LONE}"),
}
SET_APART = re.compile(r"\(([A-H])\)|\*\*\(?([A-H])(?:[.):][^*\n]{0,80})?\*\*")
# One letter, perhaps with a label before it and the option's text after it; no second letter ("A) or B)").
_LETTER = re.compile(
    r"(?:(?i:the )?(?i:answer|choice|option)(?i: is)?|答案[是为]?|选项?)?\W*([A-Ha-h])\W*"
    r"(?:(?<=[.):、])(?!.*\b[A-H][.):、]).*)?"
)


def letter(value: str) -> str | None:
    """The letter that a short answer is, with its label and its option's text or without; None for what is none."""
    match = _LETTER.fullmatch(plain(fold(value)).strip()) if len(value) <= LONGEST else None
    return match.group(1).upper() if match else None


def last(pattern: re.Pattern[str], reply: str) -> str | None:
    """The letter of a pattern's last match."""
    found = pattern.findall(reply)
    return max(found[-1]) if found else None
