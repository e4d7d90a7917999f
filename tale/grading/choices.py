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
_RIGHT = r"(?:the )?(?:correct|right|best|answer)\b(?! (?:way|order|form))"
_SAID = (
    r"(?:\b(?i:answer|choice|option)"
    r"(?: (?i:is|(?:would|must|should|has to|seems to) be)\b(?: (?i:therefore|thus|hence|clearly|indeed))?:?|:)"
    r"|\b(?:I|[Ww]e)(?:'d| would| will)? (?:choose|pick|select|go with))\s?(?i:(?:the )?(?:option|choice|letter) ?)?"
)
_SAID_ZH = r"(?<!不)(?:(?:答案|选项)(?:应该|应|就|便)?(?:是|为|选|:)|选(?!项)择?(?:是|为|:)?):?\s?(?:选项)?"
_OPTION = {"en": r"\b(?i:answer|choice|option)\s?", "zh": r"(?:答案|选项)\s?"}
_GAP = r"[^\w.。]{0,6}"
# An answer that is said ("the answer is B", "B is correct") decides before an option that is only spoken of.
SAID: dict[Language, re.Pattern[str]] = {
    "en": re.compile(rf"{_SAID}{_GAP}{_LONE}|(?<![A-Za-z0-9_'’]){_LONE}\W{{0,4}}\s(?:is|must be) {_RIGHT}"),
    "zh": re.compile(
        rf"(?:{_SAID}|{_SAID_ZH}){_GAP}{_LONE}|(?<![A-Za-z0-9_]){_LONE}\W{{0,4}}(?:选?项)?\s?是?(?:正确|对的)"
    ),
}
NAMED: dict[Language, re.Pattern[str]] = {
    "en": re.compile(rf"{_OPTION['en']}{_GAP}{_LONE}"),
    "zh": re.compile(rf"(?:{_OPTION['en']}|{_OPTION['zh']}){_GAP}{_LONE}"),
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
