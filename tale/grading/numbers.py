"""A text that is one number: its exact value, in digits or in Chinese numerals, with scale words, labels and units."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from tale.grading.text import LONGEST, MONTH, tidy

# Groups are counted: without an end each start of a long run would be tried to its end.
_GROUPED = r"(?:\d{1,3}(?:,\d{3}){1,60}(?![\d,]\d)|\d{1,2}(?:,\d{2}){1,60},\d{3}(?!\d)|\d+)"
UNSIGNED = rf"(?:{_GROUPED}(?:\.\d+)?|(?<!\.)\.\d+)(?:[eE][+-]?\d{{1,3}})?"
FRACTION = rf"\\frac ?(?:\{{ ?-?{UNSIGNED} ?\}}|\d) ?(?:\{{ ?{UNSIGNED} ?\}}|\d)"
QUOTIENT = rf"(?:{FRACTION}|(?:\d+ (?=\d+ ?/)|\d+ ?(?=\\frac))?(?:{FRACTION}|{UNSIGNED}(?: ?/ ?{UNSIGNED}(?![\d/]))?))"

_SCALES = {
    "hundreds?": 10**2, "thousands?": 10**3, "millions?|mln": 10**6, "billions?|bn": 10**9, "trillions?|tn": 10**12,
    "dozens?": 12, "lakhs?|lacs?": 10**5, "crores?": 10**7,
}  # fmt: skip
_CHINESE_UNITS = {"十": 10, "百": 100, "千": 10**3, "万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
_SUFFIXES = {"K": 10**3, "M": 10**6, "B": 10**9, **_CHINESE_UNITS}
# 3千克 are 3 kg, and 3百分 are none of ours. A letter is a scale only where it touches the number: 300 K are kelvin.
SCALE = (
    rf"(?: ?(?i:{'|'.join(_SCALES)})(?![A-Za-z])|[KMB](?![A-Za-z])"
    r"|(?: ?(?:[十百千](?![克米瓦卡赫帕焦分])|[万萬亿億]))+)"
)

# A unit's word follows after a space, or touches the number if it is long or well known: 5x and 2ab are products.
_WORD = (
    r" (?:[A-Za-z]{2}|[mglhsLJNWVA](?![A-Za-z])|a (?=[a-z]{2}))|[A-Za-z]{3}"
    r"|(?i:[ckm]m|[km]g|ml|ft|lb|oz|hr|st|nd|rd|th)"
    r"| ?[^\W\d_A-Za-z]"
)
_PER = r" ?/ ?(?:[A-Za-z]{2}|[mghsL](?![A-Za-z]))"
# Whole words: 5 oranges and 5 marbles have units, "5 or" and 5 March have none.
_NO_UNIT = (
    r"(?! ?(?i:and|or|to|plus|minus|times(?= [b-z]\b)|divided|multiplied|over|squared|cubed|out|through|until|half"
    r"|thirds?|(?:four|fif|six|seven|eigh|nin|ten|hundred|thousand)ths?"
    rf"|quarter|pi|sqrt|sin|cos|tan|log|ln|exp|[ap]\.?m|{MONTH})\b ?)"
)
_UNIT = (
    r"(?: ?(?:%|¢|° ?[CFK](?![A-Za-z])|°)| ?\([^()\d]*\)"
    rf"|{_NO_UNIT}(?={_WORD}|{_PER})(?:[^\d=+*^\\<>]|\\cdot (?=[A-Za-z])|\^ ?\{{? ?-?[1-3] ?\}}?(?!\d))++)*+"
)
# "Answer:", "x is", "x = ", "x ~", and all of "16 - 3 = 13" before its last "=".
LABEL = re.compile(
    r"^(?:(?:(?! (?:and|or) )(?:[^,;<>!~]|(?<=\d),(?=\d{3})))*[=~]|[^\d,;:]*(?::|\b(?:is|are)\b)"
    r"|(?i:about|approximately|approx\.?|around|roughly|exactly|only|just|大?约|一共|总共|共)(?= ?\d))\s*"
)
_WHOLE = re.compile(rf"(?P<sign>[-+]?) ?(?P<value>{QUOTIENT})(?P<scale>{SCALE}?){_UNIT}")
_SPACED = re.compile(r"(?<![\d.,/])\d{1,3}(?: \d{3})+(?![\d/]| ?/| \d)")


def number(text: str) -> Fraction | None:
    """The exact value of a text that is one number, with at most a label before and a unit after it, else None.

    Separators, currency and units do not count, and a percent sign is a unit: "50%" is 50. A scale word is a factor.
    """
    return number_of(tidy(text)) if len(text) <= 2 * LONGEST else None


@lru_cache(maxsize=4096)
def number_of(text: str) -> Fraction | None:
    """The same of a tidy text."""
    if len(text) > LONGEST:
        return None
    text = LABEL.sub("", text)
    text = _SPACED.sub(lambda groups: groups.group().replace(" ", ""), text)
    found = _WHOLE.fullmatch(text)
    if not found:
        return chinese(text)
    value = _quotient(found["value"])
    if value is None:
        return None
    value *= _scale(found["scale"])
    return -value if found["sign"] == "-" else value


def _quotient(text: str) -> Fraction | None:
    """The value of what `QUOTIENT` matches; None where it divides by zero."""
    text = text.replace(",", "")
    # A frac of single digits has no braces: \frac12, \frac3{4}.
    text = re.sub(r"\\frac ?(?:\{ ?([^{}]*?) ?\}|(\d)) ?(?:\{ ?([^{}]*?) ?\}|(\d))", r" \1\2/\3\4", text)
    *whole, last = text.replace(" /", "/").replace("/ ", "/").split()
    top, _, bottom = last.partition("/")
    if bottom and not Fraction(bottom):
        return None
    return Fraction(whole[0] if whole else 0) + Fraction(top) / Fraction(bottom or 1)


def _scale(text: str) -> int:
    text, factor = text.strip(), 1
    for words, value in _SCALES.items():
        if re.fullmatch(words, text, re.IGNORECASE):
            return value
    for suffix in text.replace(" ", ""):
        factor *= _SUFFIXES[suffix]
    return factor


# --- Chinese numerals -----------------------------------------------------------------------------------------------

_DIGITS = {char: i for i, char in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2, "兩": 2}
_NUMERAL = rf"[{''.join(_DIGITS)}{''.join(_CHINESE_UNITS)}]"
CHINESE = rf"[负負]?(?:\d+(?:\.\d+)?[十百千万萬亿億](?:{_NUMERAL}|\d)+|{_NUMERAL}+(?:点[{''.join(_DIGITS)}]+)?)"
# 三角形 is no 3: after numerals alone only words that count things.
_MEASURES = (
    "元块角分个只条张本人岁米尺里天日年月周时小钟秒公千克吨斤升度倍次件颗棵辆支枝双台间位名头朵匹套座束箱包盒瓶杯页"
    "题层排组"
)
_CHINESE = re.compile(rf"({CHINESE}) ?[{_MEASURES}]{{0,4}}(?:钱|多)?")


def chinese(text: str) -> Fraction | None:
    """The value of Chinese numerals (三千五百, 3千5百, 一百二, 二〇二一, 三点五, 三分之二), a measure word or not."""
    if parts := re.fullmatch(rf"({_NUMERAL}+)分之({_NUMERAL}+)", text):
        bottom, top = (_chinese(part) for part in parts.groups())
        return (top if bottom == 100 else top / bottom) if bottom else None  # a percentage is in points
    found = _CHINESE.fullmatch(text) if len(text) <= LONGEST else None
    return _chinese(found[1]) if found else None


def _chinese(text: str) -> Fraction:
    if text[0] in "负負":
        return -_chinese(text[1:])
    for unit, factor in sorted(_CHINESE_UNITS.items(), key=lambda pair: -pair[1]):
        before, found, after = text.rpartition(unit)
        if found:
            # 一百二 is 120, and 一百零二 is 102: a last digit alone is of the next smaller unit.
            rest = _chinese(after) * (factor // 10 if len(after) == 1 and factor > 10 else 1) if after else Fraction(0)
            return (_chinese(before) if before else 1) * factor + rest
    whole, _, decimals = ("".join(str(_DIGITS.get(char, char)) for char in part) for part in text.partition("点"))
    return Fraction(f"{whole or 0}.{decimals or 0}" if "." not in whole else whole)
