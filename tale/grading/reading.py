"""Which part of a reply is its answer, as the reply writes it, and what decided that."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from tale.data.question import Kind, Language
from tale.grading import choices
from tale.grading.numbers import CHINESE, QUOTIENT, SCALE, number
from tale.grading.text import LONGEST, MONTH, boxed, fold, parts, plain

Via = Literal["brackets", "boxed", "named", "number", "letter", "whole-reply", "none"]
# What decides without `[[ ]]`, in a report's words.
UNMARKED = {
    "boxed": r"\boxed",
    "named": "what is named as the answer",
    "number": "the last number",
    "letter": "the last letter set apart",
    "whole-reply": "the whole reply",
}


@dataclass(frozen=True)
class Reading:
    """What a reply answers, as the reply writes it, and what decided that."""

    value: str | None
    via: Via


def read(reply: str, kind: Kind, language: Language = "en", marked_only: bool = False, what: str = "answer") -> Reading:
    r"""Find the answer in a completion.

    The last whole `[[…]]` decides, even if it is empty or no number. Without one the last `\boxed{…}`; then, unless
    `marked_only`, what is named as the answer ("#### 18", "Answer: 18", "the answer is 18" and such in Chinese;
    `what` is the word that names it), then the last number, with any fraction, percent sign or scale word. Of a choice
    it is the letter A to H that is last said to be right ("answer is B", "B is correct"), else of the option last named
    ("option B"), else last set apart ("(B)", "**B**"), else the whole reply ("B. 12").
    """
    reply = fold(reply)
    for via, find in (("brackets", bracketed), ("boxed", boxed)):
        if (value := find(reply)) is not None:
            return Reading(value.strip(), via)  # type: ignore[arg-type]
    if marked_only:
        return Reading(None, "none")
    found = _choice(plain(reply), language) if kind == "choice" else _number(reply, what)
    return next((Reading(value, via) for via, value in found if value is not None), Reading(None, "none"))


def _choice(reply: str, language: Language):
    yield "named", choices.last(choices.SAID[language], reply) or choices.last(choices.NAMED[language], reply)
    yield "letter", choices.last(choices.SET_APART, reply)
    yield "whole-reply", choices.letter(reply)


def _number(reply: str, what: str):
    yield "named", _named(reply, what)
    yield "number", _last_number(reply)


# --- Marked ---------------------------------------------------------------------------------------------------------

# Brackets of its own may stand in an answer, that of an interval too: [[ [2, 5) ]].
_BRACKETS = re.compile(r"\[\[((?:(?!\[\[)[^\]]|\](?!\](?!\])))*)\]\]")


def bracketed(reply: str) -> str | None:
    """What is in the last whole `[[…]]`."""
    found = _BRACKETS.findall(re.sub(r"\\[\[\]]", " ", reply))
    return found[-1] if found else None


# --- Named ----------------------------------------------------------------------------------------------------------

_VERB = r"(?:is|are|was|would be|will be|must be|should be|comes to|equals)"
_AFTER = r"(?: (?:therefore|thus|then|hence|now|simply|just|clearly|given by|equal to))?"
_NOT = r"(?!\W{0,5}(?:not|n't|no|neither|unknown|unclear)\b|不)"
_CHINESE_CUE = r"答案?(?:应该|应|就|便)?(?:是|为|:|=)(?:一共|总共|共计?|大?约)?(?:是|有)?"


def _cues(what: str) -> re.Pattern[str]:
    topic = rf"\b{what}s?\b(?:\*\*)?(?: (?:to|of|for|here)\b[^.:;?!\n=]{{0,80}}?)?"
    chinese = f"|{_CHINESE_CUE}" if what == "answer" else ""
    return re.compile(rf"####|(?i:{topic} ?(?:{_VERB}\b{_AFTER}:?|[:=])){chinese}")


_CUES = {what: _cues(what) for what in ("answer", "budget")}
_REST = re.compile(r"(?:\n[-•] |[\s*_:`>~}\"']|\[\[|\.\.\.){0,20}")
_SENTENCE = re.compile(r"[.!?](?=\s|$|\*)|[。！？\n;]")
_INLINE = re.compile(r"\$([^$]{1,200})\$|\\\(([^\n]{1,200}?)\\\)")
_ITEM = (
    rf"(?:[-+]? ?(?:{QUOTIENT})(?:{SCALE})?|{CHINESE}"
    r"|\\[A-Za-z]+|[A-Za-z](?![A-Za-z'])|pi\b|sqrt\b|[-+*/^_(){}\[\]=<>!|°%]"
    r"|[:/,-](?=\d)|,(?= ?(?:and |or )?[-\d(\[{\\])|(?:and|or) (?=-?\d))"
)
_MATHEMATICS = re.compile(rf"{_ITEM}(?: ?{_ITEM})*")
_DATE = re.compile(rf"(?i:\d{{0,2}} ?{MONTH}\.? \d)")
_TIME = re.compile(r" ?[ap]\.?m\b\.?", re.IGNORECASE)


def _named(reply: str, what: str) -> str | None:
    """What follows the last cue that something follows: mathematics, else the first number of the sentence, else it."""
    for cue in reversed(list(_CUES[what].finditer(reply))):
        start = _REST.match(reply, cue.end()).end()  # type: ignore[union-attr]
        rest = reply[start : start + LONGEST]
        if rest and re.match(_NOT, rest) and (value := _leading(rest)):
            return value
    return None


def _leading(rest: str) -> str | None:
    if inline := _INLINE.match(rest):
        return inline[1] or inline[2]
    sentence = _SENTENCE.split(plain(rest), maxsplit=1)[0].strip(" *_,:`\"'")
    if _DATE.match(sentence):
        return sentence
    if found := _MATHEMATICS.match(sentence):
        time = _TIME.match(sentence, found.end())
        end = time.end() if time else found.end()
        value = _balanced(sentence[:end].rstrip(" ,(-+*/="))
        if sentence[end:].strip(" ,)]}*") and number(value) is None:  # "24, 8 of them red" is no list
            value = next(iter(parts(value)), "")
        if re.search(r"\d|[\\=]", value) or value == sentence or _CHINESE.fullmatch(value):
            return value
    return _last_number(sentence, first=True) or sentence or None


def _balanced(text: str) -> str:
    """Without the closing brackets at its end that were opened before it."""
    while text and text[-1] in ")]}" and sum(map(text.count, "([{")) < sum(map(text.count, ")]}")):
        text = text[:-1].rstrip()
    return text


_CHINESE = re.compile(CHINESE)

# --- The last number ------------------------------------------------------------------------------------------------

# In prose a minus belongs to the number only if it touches it and nothing it could subtract from stands before it;
# an exponent (24 cm^2) is not the answer.
_IN_PROSE = re.compile(
    rf"(?<!\^)(?<!\^\{{)(?<!\^\{{-)(?:(?<![A-Za-z0-9)\]}}])-)?(?<![A-Za-z0-9_])(?<!\d\.)"
    rf"(?:\d+(?::\d+)+(?: ?[ap]m\b)?|{QUOTIENT}{SCALE}?(?: ?%)?)"
)


def _last_number(reply: str, first: bool = False) -> str | None:
    value = None
    for match in _IN_PROSE.finditer(plain(reply)):
        value = match.group()
        if first:
            break
    return value
