"""Whether an answer is the gold one, by what the gold is: a text of digits, a list, an equation, a number, words.

Nothing has a tolerance. What cannot be compared is not equal, and a gold that cannot be is refused when it is read.
"""

from __future__ import annotations

import re

from tale.data.question import Kind
from tale.grading.choices import letter
from tale.grading.expressions import is_expression, same, same_equation
from tale.grading.numbers import LABEL, number_of
from tale.grading.reading import bracketed
from tale.grading.text import LONGEST, MONTH, fold, parts, tidy


def equal(value: str, gold: str, kind: Kind) -> bool:
    """Whether an answer is the gold one: the same letter, number, list, equation, expression or text.

    Separators, currency and units do not count, and a percent sign is a unit: "50%" is "50" and never "0.5" (the
    golds of these benchmarks give percentages in points). A scale word is a factor: "1.5 million" is "1500000".
    """
    if kind == "choice":
        return letter(value) is not None and letter(value) == letter(gold)
    if max(len(value), len(gold)) > 2 * LONGEST:
        return False
    value, gold = tidy(value), tidy(gold)
    return bool(value and gold) and max(len(value), len(gold)) <= LONGEST and _equal(value, gold)


def _equal(value: str, gold: str) -> bool:
    """Of tidy texts, neither of them empty."""
    if value == gold:
        return True
    if (digits := literal(gold)) is not None:
        return digits == literal(value)
    ours, theirs = items(value), items(gold)
    if theirs is not None:
        return ours is not None and _same_items(ours, theirs)
    if (relation := _relation(gold)) and not (_assigned(relation) and len(relation) == 3):
        return (found := _relation(_unlabelled(value))) is not None and _same_relation(found, relation)
    if relation:
        return _same_assignment(value, relation)
    wanted = number_of(gold)
    if wanted is not None:
        given = number_of(value)
        return given == wanted if given is not None else _evaluates(value, gold)
    if ours is not None:
        return False
    return same(_bare(value), _bare(gold)) or _words(value) == _words(gold)


_MIXED = re.compile(r"(\d) and (?:an? )?(\d+ ?/|\\frac)")


def _evaluates(value: str, gold: str) -> bool:
    """Whether an expression has the value of a number; "16-3" without spaces is a score or a range."""
    value = _MIXED.sub(r"\1 \2", value)
    if number_of(value) is not None:
        return number_of(value) == number_of(gold)
    tight = literal(value) is not None and not re.search(r"\d - \d", value)
    return not tight and items(value) is None and same(_bare(value), f"({number_of(gold)})")


def _bare(text: str) -> str:
    """Without a label, and a plain number without its unit and its scale word."""
    text = LABEL.sub("", text)
    value = number_of(text)
    return text if value is None else f"({value})"


def _words(text: str) -> str:
    return " ".join(text.casefold().split())


# --- Texts of digits ------------------------------------------------------------------------------------------------

_N = r"\d[\d,]*(?:\.\d+)?%?"
_MONTH = rf"{MONTH}\b\.?"
_LITERAL = re.compile(
    rf"(?P<text>{_N}(?: ?- ?{_N})+|{_N} ?to ?{_N}|\d+(?:/\d+){{2,}}|\d+(?:\.\d+){{2,}}"
    r"|\d+(?: ?: ?\d+(?:\.\d+)?)+(?: ?[ap]\.?m\.?)?|\d+ ?[ap]\.?m\.?"
    r"|\+?\d{0,3}[ -]?\(\d+\)[ -]?\d+(?:[ -]\d+)*|\+\d+(?:[ -]\d+)+|\d{3}(?:[ -]\d{3,4})+"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?(?: of)? {_MONTH},?(?: \d{{4}})?|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?(?:,? \d{{4}})?)"
    r"(?: [A-Za-z][^\d=^\\<>]*)?",
    re.IGNORECASE,
)


def literal(text: str) -> str | None:
    """A date, time, score, ratio, range, version or phone number in one spelling; None for what is none.

    Such digits are no expressions: 2021-05-04 is not 2012, and a score of 2-1 is not 1.
    """
    found = _LITERAL.fullmatch(LABEL.sub("", text) if ":" not in text else text)
    if not found or number_of(text) is not None:
        return None
    text = re.sub(r"(?<=\d) ?to ?(?=\d)", "-", found["text"].casefold())
    text = re.sub(r"(?<![\d:.])0(?=\d\b)", "", text)  # 03:30, 2021-05-04
    text = re.sub(r"(?<=\d)(?:st|nd|rd|th)\b|(?<=\d),(?=\d{3})|\bof\b|%|\.(?!\d)|(?<=[ap])\.(?=m)", "", text)
    return re.sub(r" ?([-:/]) ?|(?<=\d) (?=[ap]m)", r"\1", text.replace(",", " ")).replace("  ", " ")


# --- Lists, sets, tuples and intervals ------------------------------------------------------------------------------


def items(text: str) -> tuple[str, list[str]] | None:
    """A list's brackets ("" for none or braces) and its items; None for what is no list."""
    if number_of(text) is not None:
        return None
    if text.count(r"\pm") == 1:
        return "", [text.replace(r"\pm", sign) for sign in "+-"]
    found = parts(text)
    if len(found) > 1:
        return "", found
    if len(text) > 2 and text[0] in "([{" and text[-1] in ")]}" and len(found := parts(text[1:-1])) > 1:
        return (text[0] + text[-1]).replace("{}", ""), found
    return None


def _same_items(ours: tuple[str, list[str]], theirs: tuple[str, list[str]]) -> bool:
    """In order between round brackets and for intervals, else in any; each as often as in the other.

    A list without brackets may be a pair or a list; an interval is told from others by its ends.
    """
    (mine, values), (brackets, golds) = ours, theirs
    if len(values) != len(golds) or ({mine, brackets} & {"[)", "(]"} and mine != brackets):
        return False
    if mine != brackets and {mine, brackets} not in ({"", "[]"}, {"", "()"}):
        return False
    values, golds = ([tidy(item) for item in side] for side in (values, golds))
    if {mine, brackets} != {""} and {mine, brackets} != {"", "[]"}:
        return all(_equal(a, b) for a, b in zip(values, golds, strict=True))
    for gold in golds:
        match = next((i for i, value in enumerate(values) if _equal(value, gold)), None)
        if match is None:
            return False
        values.pop(match)
    return True


# --- Equations and inequalities -------------------------------------------------------------------------------------

_RELATION = re.compile(r"(<=|>=|!=|=|<|>)")
_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_NAME = re.compile(r"\\?[A-Za-z]+(?:_(?:\w|\{\w+\}))?'*(?:\([^()]*\))?|[^\W\d_]+")
_ASKED = re.compile(r"^[^\d,;:=<>]*(?::|\b(?:is|are)\b)\s*")


def _unlabelled(text: str) -> str:
    """Without "The equation is", but with both sides of the equation."""
    return _ASKED.sub("", text)


def _relation(text: str) -> list[str] | None:
    """Sides and signs in turn, or None."""
    found = [part.strip() for part in _RELATION.split(_unlabelled(text))]
    return found if len(found) > 1 and all(found[::2]) else None


def _assigned(relation: list[str]) -> bool:
    """Whether it says what one thing is: x = 5, or 16 - 3 = 13."""
    return relation[1] == "=" and (bool(_NAME.fullmatch(relation[0])) or number_of(relation[0]) is not None)


def _same_assignment(value: str, gold: list[str]) -> bool:
    """x = 5 is answered by 5, by x = 5, and by another form of the equation, but not by y = 5."""
    found = _relation(value)
    if found is None:
        return _equal(value, tidy(gold[2]))
    same_name = len(found) == 3 and found[1] == "=" and _words(found[0]) == _words(gold[0])
    return (same_name and _equal(tidy(found[2]), tidy(gold[2]))) or _same_relation(found, gold)


def _same_relation(ours: list[str], theirs: list[str]) -> bool:
    """Both sides count, up to a common factor; a chain (1 < x < 5) side by side, in either direction."""
    if len(ours) != len(theirs):
        return False
    turned = [_TURNED.get(part, part) for part in reversed(ours)]
    forms = [form for form in (ours, turned) if form[1::2] == theirs[1::2]]
    if any(all(_same_side(a, b) for a, b in zip(form[::2], theirs[::2], strict=True)) for form in forms):
        return True
    signed = theirs[1] in _TURNED
    return len(theirs) == 3 and any(same_equation((f[0], f[2]), (theirs[0], theirs[2]), signed) for f in forms)


def _same_side(ours: str, theirs: str) -> bool:
    return ours == theirs or same(_bare(tidy(ours)), _bare(tidy(theirs)))


# --- Golds ----------------------------------------------------------------------------------------------------------

_MATHEMATICS = re.compile(r"[\\^{}<>=+*/|_√∫∑]|\d *[-!] *\d")
_QUANTITIES = re.compile(r"\d[\d.,]* ?[^\W\d_]+[^\d]{0,20} \d[\d.,]* ?[^\W\d_]")


def incomparable(gold: str, kind: Kind) -> str | None:
    """Why a gold cannot be compared safely, or None where it can be."""
    if kind == "choice":
        return None if letter(gold) else "no letter of an option"
    if len(gold) > LONGEST:
        return f"longer than {LONGEST} characters"
    if not (text := tidy(gold)):
        return "nothing but punctuation"
    if not equal(bracketed(fold(f"[[{gold}]]")) or "", gold, kind):
        return "not to be told from the brackets of [[ ]] around it"
    return _incomparable(text)


def _incomparable(text: str) -> str | None:
    if literal(text) is not None or number_of(text) is not None:
        return None
    if found := items(text):
        return next((reason for item in found[1] if (reason := _incomparable(tidy(item) or item))), None)
    if relation := _relation(text):
        wrong = [side for side in relation[::2] if not (is_expression(_bare(side)) or _NAME.fullmatch(side))]
        return f"{wrong[0]!r} is no expression that can be evaluated" if wrong else None
    if is_expression(text):
        return None
    if _MATHEMATICS.search(text):
        return "no expression that can be evaluated"
    return "several quantities in one; give one number" if _QUANTITIES.search(text) else None
