"""Reading a reply and grading it against the gold answer (§6, accuracy = mean of 1{M(x_i) = y_i}).

Only the completion is read, never the prompt, whose own example `[[50]]` would otherwise count. The last `[[…]]`
decides; numbers are compared exactly, as fractions.
"""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any, Literal

from tale.data.question import Kind, Language, Question

Via = Literal["brackets", "fallback", "none"]


@dataclass(frozen=True)
class Reading:
    """What a reply answers, as the reply writes it, and what decided that."""

    value: str | None
    via: Via


@dataclass(frozen=True)
class Verdict:
    """A graded reply: `value` and `via` are its `Reading`."""

    correct: bool
    value: str | None
    via: Via


def grade(reply: str, question: Question, truncated: bool) -> Verdict:
    """Read a completion and compare it with the gold answer.

    A truncated one is read by its brackets only: its last number is an intermediate one.
    """
    reading = read(reply, question.kind, question.language, brackets_only=truncated)
    correct = reading.value is not None and equal(reading.value, question.gold, question.kind)
    return Verdict(correct, reading.value, reading.via)


def read(reply: str, kind: Kind, language: Language = "en", brackets_only: bool = False) -> Reading:
    """Find the answer in a completion.

    The last whole `[[…]]` decides, even if it is empty or no number. Without one, and unless `brackets_only`, it is
    the last number (any fraction, percent sign or scale word with it), or the letter A to H that is last named as the
    choice ("answer is B", "答案是B"), else last set apart ("(B)", "**B**"), else the whole reply ("B. 12").
    """
    reply = _fold(reply)
    brackets = _BRACKETS.findall(reply)
    if brackets:
        return Reading(brackets[-1].strip(), "brackets")
    value = None
    if not brackets_only:
        value = _last_letter(reply, language) if kind == "choice" else _last_number(reply)
    return Reading(value, "none" if value is None else "fallback")


def equal(value: str, gold: str, kind: Kind) -> bool:
    """Whether an answer is the gold one: the same letter, or exactly the same number.

    Separators, currency and units do not count, and a percent sign is a unit: "50%" is "50" and never "0.5" (the
    golds of these benchmarks give percentages in points). A scale word is a factor: "1.5 million" is "1500000".
    What is no plain number, such as `2\\sqrt{3}`, goes to math-verify.
    """
    if kind == "choice":
        return _letter(value) is not None and _letter(value) == _letter(gold)
    ours, theirs = number(value), number(gold)
    if ours is not None and theirs is not None:
        return ours == theirs
    return _tidy(value) == _tidy(gold) != "" or _same_expression(value, gold, numeric=theirs is not None)


def number(text: str) -> Fraction | None:
    """The exact value of a text that is one number, with at most a label before and a unit after it, else None."""
    text = _tidy(text)
    match = _WHOLE.fullmatch(_LABEL.sub("", text)) if len(text) <= LONGEST else None
    if match is None:
        return None
    sign, whole, numerator, denominator, scale = match.group("sign", "whole", "top", "bottom", "scale")
    bottom = _fraction(denominator) if denominator else Fraction(1)
    if bottom == 0:
        return None
    magnitude = (_fraction(whole or "0") + _fraction(numerator) / bottom) * SCALES[(scale or "").lower()]
    return -magnitude if sign == "-" else magnitude


# --- Text -----------------------------------------------------------------------------------------------------------

# Longer ones are repetition, not an answer, and Python refuses to parse 4,300 digits.
LONGEST = 200

_BRACKETS = re.compile(r"\[\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\]")

# Full-width forms, the typographic minus, spaces inside numbers, and vulgar fractions ("1½" is a mixed number).
_FOLDED = str.maketrans(
    {chr(0xFF01 + i): chr(0x21 + i) for i in range(94)}
    | {"\u3000": " ", "\u00a0": " ", "\u2009": "", "\u202f": "", "−": "-", "×": r"\times", "·": r"\cdot"}
    | {"¼": " 1/4", "½": " 1/2", "¾": " 3/4", "⁄": "/", "²": "^2", "³": "^3"}
)

_GROUPED = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
_UNSIGNED = rf"(?:{_GROUPED}(?:\.\d+)?|(?<!\.)\.\d+)(?:[eE][+-]?\d{{1,3}})?"

_LATEX = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<=\d)\s*(?=\\[dt]?frac)", " "),
        (rf"\\[dt]?frac\s*\{{\s*(-?{_UNSIGNED})\s*\}}\s*\{{\s*({_UNSIGNED})\s*\}}", r"\1/\2"),
        (r"\\[dt]?frac\s*(\d)\s*(\d)", r"\1/\2"),
        *[(r"\\(?:boxed|text\w*|math\w+)\s*\{([^{}]*)\}", r" \1 ")] * 2,  # twice: one may stand in another
        (r"\{,\}", ","),
        (r"\\[!,]", ""),
        (r"(?:US)?\\?\$|[€£¥₩₹]|\\[()\[\]]|\\(?:left|right)(?![A-Za-z])", ""),
        (r"\\%", "%"),
        (r" ?(?:\\times|\\cdot|\*|(?<=[\d ])x) ?10 ?(?:\^|\*\*) ?\{?(-?\d{1,3})(?!\d)\}?", r"e\1"),
    )
]


def _fold(text: str) -> str:
    return text.translate(_FOLDED)


def _plain(text: str) -> str:
    """LaTeX's ways to write a number, currency and typography taken away."""
    text = _fold(text)
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    return text


def _tidy(text: str) -> str:
    return re.sub(r"\s+", " ", _plain(text).strip(" \t\r\n*_`'\"()[]{}。")).rstrip(".,;:").strip()


# --- Numbers --------------------------------------------------------------------------------------------------------

SCALES = {"": 1, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "万": 10**4, "亿": 10**8}

_QUOTIENT = rf"(?:(?P<whole>\d+) (?=\d+ ?/))?(?P<top>{_UNSIGNED})(?: ?/ ?(?P<bottom>{_UNSIGNED}))?"
_SCALE = r"(?: ?(?P<scale>(?i:thousand|million|billion|trillion)(?![A-Za-z])|[万亿]))?"
# A unit's word follows after a space, or touches the number if it is long or well known: 5x and 2ab are products.
_WORD = r" (?:[A-Za-z]{2}|[mglhsL](?![A-Za-z]))|[A-Za-z]{3}|(?i:[ckm]m|[km]g|ml|ft|lb|oz|hr|th)| ?[^\W\d_A-Za-z]"
_UNIT = rf"(?: ?%| ?°[CF]?|(?={_WORD})[^\d=+*^\\<>]+(?:\^\{{?[23]\}}?)?)?"
# "Answer:", "x is", "x = ", and all of "16 - 3 = 13" before its last "=".
_LABEL = re.compile(r"^(?:[^,;<>!~]*=|[^\d,;:]*(?::|\bis\b))\s*")
_WHOLE = re.compile(rf"(?P<sign>[-+]?) ?{_QUOTIENT}{_SCALE}{_UNIT}")
# In prose a minus belongs to the number only if it touches it and nothing it could subtract from stands before it;
# an exponent (24 cm^2) is not the answer.
_IN_PROSE = re.compile(
    rf"(?<!\^)(?<!\^\{{)(?<!\^\{{-)(?:(?<![A-Za-z0-9)\]}}])-)?(?<![A-Za-z0-9_])(?<!\d\.){_QUOTIENT}{_SCALE}(?: ?%)?"
)


def _last_number(reply: str) -> str | None:
    value = None
    for match in _IN_PROSE.finditer(_plain(reply)):
        value = match.group()
    return value


def _fraction(digits: str) -> Fraction:
    return Fraction(digits.replace(",", ""))


# --- Choices --------------------------------------------------------------------------------------------------------

# A letter on its own, neither the article ("A number") nor one that is ruled out ("option A is wrong").
_LONE = (
    r"([A-H])(?![A-Za-z0-9_'’])(?!\s*(?:is\s+|are\s+)?(?:not|wrong|incorrect|false)\b)(?!\s*是?(?:错|不))"
    r"(?!(?<=A) (?!(?:is|because|since|as|for|with)\b)[a-z])"
)
_CUE_EN = r"\b(?i:answer|choice|option)(?: (?:is|would be|must be))?:?\s{0,3}(?i:(?:option|choice) ?)?"
_CUE_ZH = r"(?<!不)(?:答案|选项|选择|选)(?:应该|应)?(?:是|为|选)?:?\s{0,3}(?:选项)?"
_NAMED: dict[Language, re.Pattern[str]] = {
    "en": re.compile(rf"{_CUE_EN}[^\w.]{{0,6}}{_LONE}"),
    "zh": re.compile(rf"(?:{_CUE_EN}|{_CUE_ZH})[^\w.。]{{0,6}}{_LONE}"),
}
_SET_APART = re.compile(
    r"\(([A-H])\)|\*\*\(?([A-H])(?:[.):][^*\n]{0,80})?\*\*|\\boxed\s*\{\s*(?:\\text\s*\{)?\s*([A-H])\b"
)
# One letter, perhaps with a label before it and the option's text after it; no second letter ("A) or B)").
_LETTER = re.compile(
    r"(?:(?i:the )?(?i:answer|choice|option)(?i: is)?|答案[是为]?|选项?)?\W*([A-Ha-h])\W*"
    r"(?:(?<=[.):、])(?!.*\b[A-H][.):、]).*)?"
)


def _letter(value: str) -> str | None:
    match = _LETTER.fullmatch(_plain(value).strip()) if len(value) <= LONGEST else None
    return match.group(1).upper() if match else None


def _last_letter(reply: str, language: Language) -> str | None:
    for pattern in (_NAMED[language], _SET_APART):
        if found := pattern.findall(reply):
            groups = found[-1]
            return groups if isinstance(groups, str) else max(groups)
    return _letter(reply)


# --- Expressions ----------------------------------------------------------------------------------------------------

_COMMANDS = r"\\(?:d?frac|tfrac|sqrt|pi|cdot|times|div|left|right)(?![A-Za-z])"
_SAFE = re.compile(rf"(?:{_COMMANDS}|[\w\s.,+\-*/^(){{}}\[\]=])+", re.ASCII)
_POWER = re.compile(r"(?:\^|\*\*)\s*(?:\{([^{}^*]*)\}|\(([^()^*]*)\)|(-?\w++))(?!\s*(?:\^|\*\*))")
_DECIMAL = re.compile(r"\d*\.\d+")
LARGEST_POWER = 100
LARGEST_SYMBOLIC_POWER = 12


def _same_expression(value: str, gold: str, numeric: bool) -> bool:
    """math-verify's verdict on what our own parser cannot read; `numeric`: the gold is a number."""
    value, gold = _plain(value).strip(" ."), _plain(gold).strip(" .")
    if "=" not in gold:
        value = _LABEL.sub("", value)
    if not (_bounded(value) and _bounded(gold)) or (numeric and _variables(value)):
        return False
    parse, verify = _math_verify()
    # Without timeouts: they are signals, which only the main thread may set. `_bounded` keeps the work small.
    # Decimals become fractions: sympy would read floats, and round.
    sides = [parse(f"${_DECIMAL.sub(_as_fraction, text)}$", parsing_timeout=None) for text in (gold, value)]
    return bool(verify(*sides, float_rounding=15, timeout_seconds=None))


def _as_fraction(decimal: re.Match[str]) -> str:
    fraction = Fraction(decimal.group())
    return rf"\frac{{{fraction.numerator}}}{{{fraction.denominator}}}"


def _bounded(text: str) -> bool:
    """Whether an expression is short and plain enough to be evaluated quickly: no factorials, no towers of powers."""
    powers = _POWER.findall(text)
    if len(text) > LONGEST / 2 or not _SAFE.fullmatch(text) or text.count("^") + text.count("**") != len(powers):
        return False
    exponents = [max(1, int(digits)) for power in powers for digits in re.findall(r"\d+", "".join(power))]
    return math.prod(exponents) <= (LARGEST_SYMBOLIC_POWER if _variables(text) else LARGEST_POWER)


def _variables(text: str) -> bool:
    return re.search(r"[A-Za-z]", re.sub(_COMMANDS, "", text)) is not None


@cache
def _math_verify() -> tuple[Any, Any]:
    """`parse` and `verify`, imported late: sympy takes a second, and most runs never need it."""
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that the timeouts are off
    return parse, verify
