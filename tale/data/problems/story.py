"""What a story template is made of: sentences, the numbers that stand in them, and what can be worked out.

A slot `{boxes}` in a sentence is a number of the story; `{n}` and `{m}` are two persons, `{he} {He} {his} {His}`
refer to the first; any other slot is a word from the story's own lists.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from random import Random

SLOT = re.compile(r"\{(\w+)\}")
RANGE = re.compile(r"(?P<sign>\$?)(?P<low>[\d.]+)-(?P<high>[\d.]+)(?:/(?P<step>[\d.]+))?(?P<unit>.*)")


class Number:
    """One number of a story: its range ("2-12", "$1.25-6.75/0.25", "20-60/5 miles"), what it measures, questions.

    "What is the number of boxes?" is a question too, asked more seldom than the others.
    """

    def __init__(self, spec: str, measures: str, *questions: str):
        parts = RANGE.fullmatch(spec).groupdict()
        low, high, step = (Decimal(parts[key] or 1) for key in ("low", "high", "step"))
        self.values = tuple(low + step * i for i in range(int((high - low) / step) + 1))
        self.unit = parts["sign"] or parts["unit"]
        self.measures = measures
        self.questions = (*questions, *questions, f"What is {measures}?")

    def draw(self, rng: Random) -> Decimal:
        return rng.choice(self.values)


class Ask:
    """A question that takes one or two steps, each written "what it gives = key * key"; `@` is the first result."""

    def __init__(self, questions: str, *steps: str):
        split = [step.rpartition(" = ") for step in steps]
        self.steps = tuple((goal, *formula.split()) for goal, _, formula in split)
        self.questions = tuple(questions.split(" | "))

    @property
    def keys(self) -> list[str]:
        """The numbers of the story it uses, in the order of use."""
        return list(dict.fromkeys(key for _, a, _, b in self.steps for key in (a, b) if key != "@"))


@dataclass(frozen=True)
class Story:
    """A template. The first sentence always stands; of the others a problem keeps those it needs and some more."""

    name: str
    sentences: tuple[str, ...]
    numbers: dict[str, Number]
    asks: tuple[Ask, ...]
    words: dict[str, str]
    new: bool = False

    @cached_property
    def keys(self) -> tuple[tuple[str, ...], ...]:
        """For each sentence, the numbers that stand in it."""
        return tuple(tuple(key for key in SLOT.findall(s) if key in self.numbers) for s in self.sentences)


def story(name: str, *sentences: str, numbers: dict[str, Number], asks: tuple[Ask, ...], new=False, **words: str):
    """A `Story`; its word lists are written as keywords, `item="pen/pencil"`."""
    return Story(name, sentences, numbers, asks, words, new)
