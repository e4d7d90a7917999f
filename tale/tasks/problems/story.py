"""The templates of stories.yaml."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from pathlib import Path

import yaml

from tale.storage.strict_json import convert_value

FILE = Path(__file__).with_name("stories.yaml")


@dataclass(frozen=True)
class Story:
    """A template; stories.yaml documents its fields."""

    name: str
    sentences: tuple[str, ...]
    numbers: dict[str, tuple[str, ...]]
    asks: tuple[tuple[str, ...], ...]
    words: dict[str, tuple[str, ...]] = field(default_factory=dict)
    new: bool = False

    def numbers_in(self, sentence: int) -> list[str]:
        """The names of the numbers in a sentence."""
        return [slot for slot in re.findall(r"\{(\w+)\}", self.sentences[sentence]) if slot in self.numbers]


@dataclass(frozen=True)
class Book:
    """All stories, and the names of persons by pronoun."""

    persons: dict[str, tuple[str, ...]]
    stories: tuple[Story, ...]


@cache
def book() -> Book:
    """The whole file, read when the first question is generated, as it takes a tenth of a second.

    Raises:
        UserError: it is damaged.
    """
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return convert_value(content, Book, str(FILE), "a book of stories", "restore it from the repository")


@cache
def values(span: str) -> tuple[Decimal, ...]:
    """All numbers of a span, "2-12" or "1.25-6.75/0.25", with as many decimals as its first one."""
    low, high, step = (Decimal(number) for number in re.split("[-/]", f"{span}/1")[:3])
    return tuple(low + step * i for i in range(int((high - low) / step) + 1))
