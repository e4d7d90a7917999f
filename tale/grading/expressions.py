"""Expressions and equations: whether two are the same for every value of their variables.

They are evaluated, not rewritten: at a few random rational points, so the work is bounded by the text's length, and two
rational functions that agree there are the same but for a chance of about 1 in 10⁹. What is rational is exact. Roots,
π and functions have 1,000 digits, of which 500 count. What would grow without bound is refused, not computed.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from typing import Any

Value = Any  # a Fraction, or a number of `_context`
Point = dict[str, Fraction]

POINTS = 4
DEEPEST = 30
LARGEST_BITS = 20_000  # of an exact power
LARGEST = 400 * math.log2(10)  # binary exponent of what is not exact, either way
ROUNDING = -500 * math.log2(10)  # the same of what is left of a difference of equals


class Unsupported(ValueError):
    """No expression of this grammar, or one that is undefined or too large."""


def same(ours: str, theirs: str) -> bool:
    """Whether two expressions have the same value at every point at which they are defined."""
    try:
        verdicts = [_equal(a, b) for a, b in _values(ours, theirs)]
    except Unsupported:
        return False
    return bool(verdicts) and all(verdicts)


def same_equation(ours: tuple[str, str], theirs: tuple[str, str], signed: bool = False) -> bool:
    """Whether two equations, by their sides, are the same up to a factor: x + 2y = 3 and 2x + 4y = 6.

    `signed`: the factor has to be positive, as between inequalities.
    """
    differences = list(_values(*(f"({left}) - ({right})" for left, right in (ours, theirs))))
    pairs = [(a, b) for a, b in differences if not (_is_zero(a) and _is_zero(b))]
    if not pairs or any(_is_zero(a) or _is_zero(b) for a, b in pairs):
        return False
    try:
        factors = [_divide(a, b) for a, b in pairs]
        return all(_equal(factor, factors[0]) for factor in factors) and (not signed or _is_positive(factors[0]))
    except Unsupported:
        return False


def is_expression(text: str) -> bool:
    """Whether it can be evaluated."""
    return any(True for _ in _values(text, text))


def _values(ours: str, theirs: str) -> Iterator[tuple[Value, Value]]:
    """Both at the same random points; nothing where one of them is no expression."""
    draw = random.Random(0)
    names = sorted({*_names(ours), *_names(theirs)})
    for _ in range(POINTS if names else 1):
        point = {name: Fraction(draw.randint(-(10**9), 10**9), 10**8 + 7) for name in names}
        try:
            yield _Parser(ours, point).value(), _Parser(theirs, point).value()
        except Unsupported:
            return


# --- Reading --------------------------------------------------------------------------------------------------------

_FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|exp"
_GREEK = (
    "alpha|beta|gamma|delta|epsilon|varepsilon|zeta|eta|theta|vartheta|iota|kappa|lambda|mu|nu|xi|rho|sigma|tau|upsilon"
    "|phi|varphi|chi|psi|omega|Gamma|Delta|Theta|Lambda|Xi|Sigma|Phi|Psi|Omega|ell|hbar|infty"
)
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:e[+-]?\d{1,3}(?!\d))?|\.\d+"
_TOKEN = re.compile(
    rf"\s*(?:(?P<number>{_NUMBER})"
    rf"|\\?(?P<function>{_FUNCTIONS}|sqrt|frac|pi|cdot|times|div)(?![A-Za-z])"
    rf"|(?P<name>(?:\\(?:{_GREEK})(?![A-Za-z])|[A-Za-z])(?:_(?:\w|\{{\w{{1,9}}\}}))?'*)"
    r"|(?P<sign>\*\*|[-+*/^_(){}\[\]|!]))"
)
_WORD = re.compile(rf"(?<![A-Za-z\\])(?!(?:{_FUNCTIONS}|sqrt)(?![A-Za-z]))[A-Za-z]{{3}}")
_CLOSING = {"(": ")", "[": "]", "{": "}", "|": "|"}
_SIGNS = {"times": "*", "cdot": "*", "div": "/", "**": "^"}


@cache
def _tokens(text: str) -> tuple[tuple[str, str], ...]:
    found, place = [], 0
    text = text.strip()
    if word := _WORD.search(text):  # ab is a product, and abc a word
        raise Unsupported(word.group())
    while place < len(text):
        match = _TOKEN.match(text, place)
        if not match:
            raise Unsupported(text[place : place + 20])
        kind, token = match.lastgroup or "", match.group(match.lastgroup or 0)
        found.append((kind if kind in ("number", "name") else "", _SIGNS.get(token, token)))
        place = match.end()
    return tuple(found)


def _names(text: str) -> set[str]:
    try:
        return {token for kind, token in _tokens(text) if kind == "name"}
    except Unsupported:
        return set()


class _Parser:
    """Recursive descent that evaluates as it reads: sum, product, power, atom."""

    def __init__(self, text: str, point: Point):
        self.tokens, self.point, self.place = _tokens(text), point, 0
        self.depth = self.bars = 0

    def value(self) -> Value:
        """Of the whole text."""
        value = self._sum()
        if self.place < len(self.tokens):
            raise Unsupported(self._next())
        return value

    def _next(self) -> str:
        return self.tokens[self.place][1] if self.place < len(self.tokens) else ""

    def _take(self, *wanted: str) -> str:
        """The next token if it is one of these, else nothing."""
        token = self._next()
        if token not in wanted or not token:
            return ""
        self.place += 1
        return token

    def _need(self, wanted: str) -> None:
        if not self._take(wanted):
            raise Unsupported(f"{wanted} is missing")

    def _sum(self) -> Value:
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unsupported("nested too deeply")
        value = _negative(self._product()) if self._sign() < 0 else self._product()
        while sign := self._take("+", "-"):
            term = self._product()
            value = _add(value, term if sign == "+" else _negative(term))
        self.depth -= 1
        return value

    def _sign(self) -> int:
        sign = 1
        while found := self._take("+", "-"):
            sign = -sign if found == "-" else sign
        return sign

    def _product(self) -> Value:
        value = self._power()
        while True:
            if self._take("*"):
                sign = self._sign()
                value = _multiply(_multiply(value, self._power()), Fraction(sign))
            elif self._take("/"):
                sign = self._sign()
                value = _divide(_multiply(value, Fraction(sign)), self._power())
            elif self._next() and self._next() not in ("+-)}]^!|" if self.bars else "+-)}]^!"):
                if self.tokens[self.place][0] == "number" and self.tokens[self.place - 1][0] == "number":
                    raise Unsupported("two numbers side by side")
                value = _multiply(value, self._power())
            else:
                return value

    def _power(self) -> Value:
        value = self._atom()
        while self._take("!"):
            value = _factorial(value)
        if self._take("^"):
            sign = self._sign()
            value = _raise(value, _multiply(Fraction(sign), self._power()))
        return value

    def _atom(self) -> Value:
        kind, token = self.tokens[self.place] if self.place < len(self.tokens) else ("", "")
        self.place += 1
        if kind == "number":
            return Fraction(token.replace(",", ""))
        if kind == "name":
            return self.point[token]
        if token in _CLOSING:
            self.bars, outside = token == "|", self.bars
            value = self._sum()
            self._need(_CLOSING[token])
            self.bars = outside
            return _apply(abs, value) if token == "|" else value
        if token == "pi":
            return +_context().pi
        if token == "frac":
            return _divide(self._digit(), self._digit())
        if token == "sqrt":
            return self._root()
        if token in _FUNCTIONS.split("|"):
            return self._function(token)
        raise Unsupported(token)

    def _digit(self) -> Value:
        """What is in braces, or the next digit or name alone: \\frac12 is 1/2."""
        kind, token = self.tokens[self.place] if self.place < len(self.tokens) else ("", "")
        if kind == "number" and not token.isdigit():
            raise Unsupported(token)
        if kind == "number" and len(token) > 1:
            split = (kind, token[0]), (kind, token[1:])
            self.tokens = (*self.tokens[: self.place], *split, *self.tokens[self.place + 1 :])
        return self._atom()

    def _root(self) -> Value:
        degree = Fraction(2)
        if self._take("["):
            degree = self._sum()
            self._need("]")
        value = self._atom()
        if _is_negative(value) and degree.denominator == 1 and degree % 2:
            return _negative(_raise(_negative(value), 1 / degree))
        return _raise(value, _divide(Fraction(1), degree))

    def _function(self, name: str) -> Value:
        base = exponent = None
        if name == "log" and self.place + 1 < len(self.tokens) and self._take("_"):
            base = self._atom()
        if self._take("^"):
            exponent = self._atom()
        value = self._power()
        result = _apply(_call("ln" if base is not None else name), _inexact(value), cancels=True)
        if base is not None:
            result = _divide(result, _apply(_call("ln"), _inexact(base), cancels=True))
        return result if exponent is None else _raise(result, exponent)


# --- Arithmetic -----------------------------------------------------------------------------------------------------


@cache
def _context() -> Any:
    """1,000 digits, in a context of our own; imported late, since most answers are plain numbers."""
    from mpmath.ctx_mp import MPContext

    context = MPContext()
    context.dps = 1000
    return context


def _inexact(value: Value) -> Value:
    return _context().mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def _apply(operation: Callable[..., Value], *values: Value, cancels: bool = False) -> Value:
    """An operation, exact where all values are; what is not must keep to the range in which its digits count.

    `cancels`: equals may leave nothing but rounding, which is 0.
    """
    if not all(isinstance(value, Fraction) for value in values):
        values = tuple(map(_inexact, values))
    try:
        result = operation(*values)
    except (ArithmeticError, ValueError, TypeError) as error:
        raise Unsupported(str(error)) from error
    if isinstance(result, Fraction):
        return result
    size = _context().mag(result)  # binary exponent
    if cancels and size < ROUNDING:
        return Fraction(0)
    if not abs(size) < LARGEST:
        raise Unsupported("too large or too small")
    return result


def _add(a: Value, b: Value) -> Value:
    return _apply(lambda x, y: x + y, a, b, cancels=True)


def _multiply(a: Value, b: Value) -> Value:
    return _apply(lambda x, y: x * y, a, b)


def _negative(value: Value) -> Value:
    return _multiply(Fraction(-1), value)


def _divide(a: Value, b: Value) -> Value:
    if _is_zero(b):
        raise Unsupported("division by zero")
    return _apply(lambda x, y: x / y, a, b)


def _raise(base: Value, exponent: Value) -> Value:
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        return _whole_power(base, int(exponent))
    if _is_zero(base):
        raise Unsupported("a power of zero")
    if not abs(_inexact(exponent)) < LARGEST:
        raise Unsupported("too large a power")
    return _apply(lambda x, y: x**y, _inexact(base), _inexact(exponent))


def _whole_power(base: Value, exponent: int) -> Value:
    if _is_zero(base) and exponent <= 0:
        raise Unsupported("a power of zero")
    if isinstance(base, Fraction):
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if abs(base) != 1 and bits * abs(exponent) > LARGEST_BITS:
            raise Unsupported("too large a power")
    elif abs(exponent) > LARGEST:
        raise Unsupported("too large a power")
    return _apply(lambda x: x ** (exponent % 2 if isinstance(base, Fraction) and abs(base) == 1 else exponent), base)


def _factorial(value: Value) -> Value:
    if not isinstance(value, Fraction) or value.denominator != 1 or not 0 <= value <= 1000:
        raise Unsupported("a factorial")
    return Fraction(math.factorial(int(value)))


def _call(name: str) -> Callable[[Value], Value]:
    names = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "log": "log10"}
    return getattr(_context(), names.get(name, name))


def _equal(a: Value, b: Value) -> bool:
    return _is_zero(_add(a, _negative(b)))


def _is_zero(value: Value) -> bool:
    return isinstance(value, Fraction) and value == 0


def _is_negative(value: Value) -> bool:
    return value.imag == 0 and value.real < 0


def _is_positive(value: Value) -> bool:
    return value.imag == 0 and value.real > 0
