"""Typography and LaTeX written plainly, so that one grammar reads all ways to write the same thing.

Every pattern here is linear in the text: replies may be long, and are somebody else's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

# Longer ones are repetition, not an answer, and Python refuses to parse 4,300 digits.
LONGEST = 200

MONTH = (  # ignoring case
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-", strict=True))
_COMMANDS = {"×": "times", "√": "sqrt", "÷": "div", "π": "pi", "∞": "infty", "±": "pm", "∪": "cup"}
_SYMBOLS = {
    **{char: rf"\{name} " for char, name in (_COMMANDS | dict.fromkeys("⋅·∙", "cdot")).items()},
    **{char: " " + unicodedata.normalize("NFKC", char).replace("⁄", "/") for char in "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"},
    **dict.fromkeys("⁄∕", "/"),
    **dict.fromkeys("≤≦", "<="),
    **dict.fromkeys("≥≧", ">="),
    **dict.fromkeys("≈∼", "~"),
    **dict.fromkeys("“”", '"'),
    **dict.fromkeys("‘’′", "'"),
    **{"≠": "!=", "º": "°", "、": ","},
}
# Dashes and minus signs of every width, spaces of every width, and what has no width at all.
_FOLDED = str.maketrans(
    {chr(0xFF01 + i): chr(0x21 + i) for i in range(94)}
    | dict.fromkeys("‐‑‒–—―−﹘﹣⁃➖", "-")
    | dict.fromkeys("\u00a0\u2007\u2008\u2009\u200a\u202f", "\u202f")  # those that stand within numbers
    | dict.fromkeys("\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u205f\u3000", " ")
    | dict.fromkeys("\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff", "")
    | _SYMBOLS
)
_POWER = re.compile(f"[{''.join(_SUPERSCRIPTS)}]+")

_WRAPPERS = r"boxed|fbox|text\w*|math\w+|operatorname|mbox|hbox"
_MONEY = "$€£¥₩₹₽₪₫฿₱₦"
_CODES = r"(?:USD|EUR|GBP|JPY|CNY|RMB|INR|KRW|AUD|CAD|CHF|HKD|SGD|BRL|MXN|NZD|ZAR|RM|(?i:rs)\.?)"
_GROUPS = r"(?=\d{3}(?!\d))"

_REWRITES: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"\\begin\{(?:equation|align|gather)\*?\}|\\end\{(?:equation|align|gather)\*?\}|\\[()\[\]]", " "),
    (r"\\(?:left|right|[bB]igg?[lr]?|displaystyle)(?![A-Za-z])\.?|\\!(?<!,\\!)", ""),
    (r",\\! ?", ","),
    (r"\{,\}", ","),
    (rf"(?<=\d)\\[,;: ]{_GROUPS}", ","),
    (r"\\(?:[,;:> ]|q?quad(?![A-Za-z]))|(?<!\\)~(?=\\(?:text|math|rm))", " "),
    (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
    (r"\^ ?(?:\{ ?\\circ ?\}|\\circ(?![A-Za-z]))|\\(?:degrees?|textdegree)(?![A-Za-z])", "°"),
    *[(r"\\(?:boxed|fbox|text\w*|math\w+|operatorname|mbox|hbox) ?\{((?:[^{}]|\{[^{}]*\})*)\}", r" \1 ")]
    * 3,  # one in another
    (rf"([{_MONEY}] ?\d[\d.,]*) ?([kKmMbB])\b", lambda found: found[1] + found[2].upper()),
    (rf"(?:US|HK|[ACNS])?\\?[{_MONEY}]", ""),
    (rf"(?<![A-Za-z]){_CODES} ?(?=-?[\d.])", ""),
    (r"</?(?:b|strong|em|i|u|p|br|span|answer)>", " "),
    (r"(?i:\bnegative |^minus )(?=\.?\d)", "-"),
    (r"\\([%#&_])", r"\1"),
    (r"\\(?:leq?|leqslant)(?![A-Za-z])", "<="),
    (r"\\(?:geq?|geqslant)(?![A-Za-z])", ">="),
    (r"\\lt(?![A-Za-z])", "<"),
    (r"\\gt(?![A-Za-z])", ">"),
    (r"\\neq?(?![A-Za-z])", "!="),
    (r"\\(?:approx|simeq|sim)(?![A-Za-z])", "~"),
    (r"\\([{}])", r"\1"),
    (r" ?(?:\\times|\\cdot|\*|(?<=[\d ])x) ?10 ?(?:\^|\*\*) ?(?:\{ ?(-?\d{1,3}) ?\}|(-?\d{1,3})(?!\d))", r"e\1\2"),
]
_LATEX = [(re.compile(pattern), replacement) for pattern, replacement in _REWRITES]


def fold(text: str) -> str:
    """Full-width forms, dashes, spaces, superscripts and symbols in ASCII or LaTeX; runs of white space as one."""
    text = _POWER.sub(lambda run: "^{" + "".join(map(_SUPERSCRIPTS.__getitem__, run.group())) + "}", text)
    text = text.translate(_FOLDED)
    text = re.sub(rf"(?<=\d)\u202f{_GROUPS}", ",", text).replace("\u202f", " ")
    return re.sub(r"\s+", lambda run: "\n" if "\n" in run.group() else " ", text)


def plain(text: str) -> str:
    """A folded text without LaTeX's layout and without currencies; fractions, roots and powers stay."""
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    return text


_BRACES = re.compile(r"\\(?:boxed|fbox) ?\{|\\?[{}]")


def boxed(text: str) -> str | None:
    r"""What is in the last whole `\boxed{…}` of a folded text, found in one pass over its braces."""
    opened: list[int] = []
    box: tuple[int, int] | None = None
    for brace in _BRACES.finditer(text):
        if brace.group() == "}":
            start = opened.pop() if opened else -1
            box = (start, brace.start()) if start > 0 else box
        elif brace.group() != r"\{" and brace.group() != r"\}":
            opened.append(brace.end() if len(brace.group()) > 1 else -1)
    return None if box is None else text[slice(*box)]


def tidy(text: str) -> str:
    """A short answer, plain, without emphasis, quotes, a full stop, or brackets around a single thing."""
    text = fold(text)
    text = " ".join(plain(boxed(text) or text).split())
    while True:
        inner = text.strip(" *_`'\"").rstrip(".,;:。 ")
        if (
            len(inner) > 1
            and _PAIRS.get(inner[0]) == inner[-1]
            and len(parts(inner[1:-1])) == 1
            and _closed(inner[1:-1])
        ):
            inner = inner[1:-1]
        if inner == text:
            return text
        text = inner


_PAIRS = {"(": ")", "[": "]", "{": "}"}
_SEPARATOR = re.compile(r",|;|\s(?:and|or)\s(?!a\b)|\\cup(?![A-Za-z])")


def parts(text: str) -> list[str]:
    """The parts of a list, which commas, semicolons, "and" and "or" separate outside of brackets."""
    found, depth, start = [], 0, 0
    marks = {match.start(): match.end() for match in _SEPARATOR.finditer(text)}
    for i, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if not depth and i in marks and i >= start:
            found.append(text[start:i].strip())
            start = marks[i]
    return [part for part in (*found, text[start:].strip()) if part]


def _closed(text: str) -> bool:
    """Whether no bracket is closed that was not opened, as in `) + (`."""
    depth = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        if depth < 0:
            return False
    return depth == 0
