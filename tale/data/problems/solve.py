"""A problem's solution in words, at five lengths. Every equation in it is one that has been worked out."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

SIGNS = {"+": "+", "-": "-", "*": "×", "/": "÷"}
INVERSE = {"+": "-", "-": "+", "*": "/", "/": "*"}
VERBS = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}
REASONS = {
    "+": ("two amounts are put together", "both amounts count"),
    "-": ("one amount is taken from another", "the smaller number is taken from the larger"),
    "*": ("the same amount comes several times", "equal amounts are counted together"),
    "/": ("an amount is split into equal parts", "all the parts are equal"),
}


@dataclass(frozen=True)
class Quantity:
    """What a number measures ("the number of boxes"), the number as written, and its unit (" miles", "$", "%")."""

    name: str
    value: str
    unit: str = ""

    @property
    def amount(self) -> str:
        return f"${self.value}" if self.unit == "$" else self.value + self.unit

    def __str__(self) -> str:
        return f"{self.name} is {self.amount}"


@dataclass(frozen=True)
class Step:
    a: Quantity
    sign: str
    b: Quantity
    result: Quantity

    def __str__(self) -> str:
        return f"{self.a.value} {SIGNS[self.sign]} {self.b.value} = {self.result.value}"


@dataclass(frozen=True)
class Case:
    """A story as sentences with their quantities, the question, what it needs, and the steps to the goal."""

    sentences: tuple[tuple[str, tuple[Quantity, ...]], ...]
    question: str
    needed: tuple[Quantity, ...]
    goal: Quantity
    steps: tuple[Step, ...]

    @property
    def text(self) -> str:
        return " ".join([*(sentence for sentence, _ in self.sentences), self.question])

    @property
    def gold(self) -> str:
        return self.goal.value

    @property
    def facts(self) -> list[Quantity]:
        """Every quantity of the story, in its order."""
        return [quantity for _, quantities in self.sentences for quantity in quantities]

    def source(self, quantity: Quantity) -> str:
        return next(sentence for sentence, quantities in self.sentences if quantity in quantities)


def apply(a: int, sign: str, b: int) -> int | None:
    """a sign b, or None where it is too hard for a small model, or no whole number."""
    if sign == "+":
        return a + b if a + b < 100 else None
    if sign == "-":
        return a - b if a < 100 and a - b > 1 else None
    if sign == "*":
        small, big = sorted((a, b))
        return a * b if small <= 12 and (big <= 12 or big % 10 == 0) else None
    return a // b if a % b == 0 and 1 < a // b <= 12 and 1 < b <= 12 else None


def equation(a: int, sign: str, b: int) -> str:
    value = {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[sign]
    return f"{a} {SIGNS[sign]} {b} = {value}"


def solve(case: Case, rng: Random) -> tuple[str, str, str, str, str]:
    """The five solutions, each longer than the one before, each ending with the answer line."""
    bodies = [], _line(case), _short(case, rng), _medium(case, rng), _full(case, rng)
    return tuple("\n".join([*lines, f"Answer: [[{case.gold}]]"]) for lines in bodies)


def _line(case: Case) -> list[str]:
    return [f"{', '.join(map(str, case.steps))}." if case.steps else f"{_upper(str(case.goal))}."]


def _short(case: Case, rng: Random) -> list[str]:
    if not case.steps:
        says = rng.choice(("The story says", "We read in the story", "It is written in the story"))
        return [f'{says}: "{case.source(case.goal)}"', f"So {case.goal}."]
    then = rng.choice(("So", "Then", "This gives"))
    if len(case.steps) == 1:
        return [f"{_upper(_list(case.needed))}.", f"{then} {case.steps[0]}, which is {case.goal.name}."]
    first, second = (f"{step}, which is {step.result.name}." for step in case.steps)
    return [first, f"Then {second}"]


def _medium(case: Case, rng: Random) -> list[str]:
    """Everything that the story tells, in one sentence; then what the question asks."""
    known = rng.choice(("The story says that", "We know that", "We read that"))
    lines = [_goal(case, rng), f"{known} {_list(case.facts)}."]
    if not case.steps:
        return [*lines, f"So {case.goal}."]
    if len(case.steps) == 1:
        return [*lines, f"{_why(case.steps[0], rng)} {case.steps[0]}."]
    return [*lines, *(f"{_plan(step)}: {step}." for step in case.steps)]


def _full(case: Case, rng: Random) -> list[str]:
    """Sentence by sentence what the story tells, before anything is decided; then every small step, and a check."""
    lines = [_goal(case, rng), *(_reading(*sentence) for sentence in case.sentences)]
    if not case.steps:
        plain = rng.choice(("it stands in the story", "the story tells it", "nothing has to be computed"))
        return [*lines, f"We need {case.goal.name}, and {plain}.", _contrast(case, rng), f"So {case.goal}."]
    for step in case.steps:
        why = _why(step, rng) if len(case.steps) == 1 else f"{_plan(step)}."
        lines.append(f"{why} {_work(step)}")
    end = rng.choice(("This fits, so", "Everything agrees, so", "That is right, so"))
    return [*lines, _check(case.steps[-1], rng), f"{end} {case.goal}."]


def _goal(case: Case, rng: Random) -> str:
    return f"{rng.choice(('We look for', 'We want to know', 'The question asks for'))} {case.goal.name}."


def _reading(sentence: str, quantities: tuple[Quantity, ...]) -> str:
    """A sentence of the story as it stands there, and what it says."""
    return f'"{sentence.removesuffix(".")}" tells us that {_list(quantities)}.'


def _why(step: Step, rng: Random) -> str:
    return f"{_plan(step)}, because {rng.choice(REASONS[step.sign])}."


def _plan(step: Step) -> str:
    return f"To find {step.result.name}, we {VERBS[step.sign]}"


def _check(step: Step, rng: Random) -> str:
    """The step undone."""
    undone = equation(int(step.result.value), INVERSE[step.sign], int(step.b.value))
    return f"{rng.choice(('Check:', 'Let us check:'))} {undone}, and {step.a.value} is {step.a.name}."


def _contrast(case: Case, rng: Random) -> str:
    """The check of a looked-up answer: another number of the story measures another thing."""
    other = rng.choice([fact for fact in case.facts if fact != case.goal])
    return f"{rng.choice(('Check:', 'Let us check:'))} {other.amount} is {other.name}, which is not asked for."


def _work(step: Step) -> str:
    parts = _parts(int(step.a.value), step.sign, int(step.b.value))
    return f"{_upper(_list(parts))}, so {step}." if parts else f"{step}."


def _parts(a: int, sign: str, b: int) -> list[str]:
    """The small equations that lead to a sign b; none where it is small already."""
    if sign == "*":
        return _products(*sorted((a, b)))
    if sign == "/":
        guess = a // b // 2
        return [equation(b, "*", guess), equation(b, "*", a // b)] if guess > 1 else [equation(b, "*", a // b)]
    big, small = (max(a, b), min(a, b)) if sign == "+" else (a, b)
    first = _first_part(big, sign, small)
    if not first:
        return []
    middle = big + first if sign == "+" else big - first
    return [equation(big, sign, first), equation(middle, sign, small - first)]


def _first_part(big: int, sign: str, small: int) -> int:
    """What to add (or take away) first: the tens, else as much as leads to a full ten, else a half."""
    if small > 10:
        return small - 10 if small % 10 == 0 else small - small % 10
    to_ten = (10 - big % 10) % 10 if sign == "+" else big % 10
    return to_ten if 0 < to_ten < small else small // 2


def _products(small: int, big: int) -> list[str]:
    if big > 10 and big % 10 == 0:
        return [equation(small, "*", big // 10), equation(small * (big // 10), "*", 10)]
    if big == 10:
        return []
    if big > 5:
        split = 10 if big > 10 else 5
        parts = [equation(small, "*", split), equation(small, "*", big - split)]
        return [*parts, equation(small * split, "+", small * (big - split))]
    return [equation(big * i, "+", big) for i in range(1, small)]


def _list(things) -> str:
    *first, last = map(str, things)
    return f"{', '.join(first)} and {last}" if first else last


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
