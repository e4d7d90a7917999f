"""Generating questions from templates, and their splits. All randomness is of one `Random(f"{split}/{seed}")`.

Why not a generator library: the grade-school templates of reasoning-gym need many more steps and larger numbers; these
stories resemble GSM8K-Zero, where the story itself contains most answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import islice
from random import Random

from tale.data.question import Question
from tale.errors import UserError, nearest
from tale.tasks.problems.story import Story, book, values

# The hash of an opening, modulo 10, decides its split, whatever the seed.
TENTHS = {"train": (5, 6, 7), "test": (8,), "test_new": (9,)}
STEPS = {0: 55, 1: 35, 2: 10}  # percent of the questions by number of steps; with 0 the story contains the answer
SENTENCES = (2, 3)
SPELLED = 0.1  # share of stories that write small numbers as words, as GSM8K-Zero sometimes does
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
SMALL = re.compile(r"(?<![$.\d])([2-9]|1[0-2])(?!\.?\d|%)")
PATIENCE = 5000  # successive openings that are duplicates or of another split, after which generation ends
TRIES = 5000


def load(split: str, count: int, seed: int) -> list[Question]:
    """The first `count` questions of a split; a longer list starts with the shorter one.

    Raises:
        UserError: no such split, or it has fewer questions.
    """
    if split not in TENTHS:
        raise UserError(f"no split {split!r} of the problems: use {', '.join(TENTHS)}.{nearest(split, TENTHS)}")
    questions = list(islice(_questions(split, seed), count))
    if len(questions) < count:
        raise UserError(f"problems/{split}: has only {len(questions)} questions, not {count}; lower task.limit")
    return questions


def _questions(split: str, seed: int) -> Iterator[Question]:
    rng = Random(f"{split}/{seed}")
    stories = [story for story in book().stories if story.new == (split == "test_new")]
    seen: set[str] = set()
    rejected = 0
    while rejected < PATIENCE:
        question = Question(f"problems/{split}-s{seed}/{len(seen)}", *_text_and_gold(stories, rng))
        opening = question.context_hash
        if opening in seen or int(opening, 16) % 10 not in TENTHS[split]:
            rejected += 1
            continue
        seen.add(opening)
        rejected = 0
        yield question


def _text_and_gold(stories: Sequence[Story], rng: Random) -> tuple[str, str]:
    """A story with sampled numbers and one question about it, and the answer."""
    count = rng.choices(list(STEPS), list(STEPS.values()))[0]
    if count:
        story, (formula, *asked) = rng.choice(
            [(story, ask) for story in stories for ask in story.asks if ask[0].count(";") == count - 1]
        )
    else:
        story = rng.choice(stories)
        formula = rng.choice(list(story.numbers))
        _, measures, *questions = story.numbers[formula]
        asked = [*questions, *questions, f"What is {measures}?"]  # less frequent than the others
    words = _words(story, rng)
    numbers, gold = _numbers(story, formula, rng)
    kept = _kept(story, set(re.findall(r"\w+", formula)), rng.choice(SENTENCES), rng)
    spelled = rng.random() < SPELLED
    told = " ".join(story.sentences[i] for i in kept).format_map(words | numbers)
    if spelled:
        told = SMALL.sub(lambda match: WORDS[int(match[0])], told)
    return f"{told} {rng.choice(asked).format_map(words)}", str(gold)


def _words(story: Story, rng: Random) -> dict[str, str]:
    """The words for all slots except the numbers'."""
    he, his = ("she", "her") if rng.random() < 0.5 else ("he", "his")
    persons = book().persons
    name = rng.choice(persons[he])
    other = rng.choice([other for other in (*persons["she"], *persons["he"]) if other != name])
    pronouns = {"n": name, "m": other, "he": he, "his": his, "He": he.capitalize(), "His": his.capitalize()}
    return pronouns | {slot: rng.choice(words) for slot, words in story.words.items()}


def _numbers(story: Story, formula: str, rng: Random) -> tuple[dict[str, Decimal], Decimal | int]:
    """Distinct numbers, distinct from the results of the steps too, and easy to compute with; and the answer."""
    for _ in range(TRIES):
        numbers = {key: rng.choice(values(span)) for key, (span, *_) in story.numbers.items()}
        results = _results(formula, numbers)
        if results is not None and len({*numbers.values(), *results}) == len(numbers) + len(results):
            return numbers, results[-1] if results else numbers[formula]
    raise AssertionError(f"template {story.name!r}: no numbers fit {formula}")


def _results(formula: str, numbers: dict[str, Decimal]) -> list[int] | None:
    """The result of each step of a formula, none for a single number; None if a step is too hard."""
    results: list[int] = []
    for left, sign, right in re.findall(r"([\w@]+) ([-+*/]) ([\w@]+)", formula):
        a, b = (int(results[-1] if key == "@" else numbers[key]) for key in (left, right))
        value = apply(a, sign, b)
        if value is None:
            return None
        results.append(value)
    return results


def apply(a: int, sign: str, b: int) -> int | None:
    """The result of a sign b; None if it is too hard for a small model, or not an integer."""
    if sign == "+":
        return a + b if a + b < 100 else None
    if sign == "-":
        return a - b if a < 100 and a - b > 1 else None
    if sign == "*":
        small, big = sorted((a, b))
        return a * b if small <= 12 and (big <= 12 or big % 10 == 0) else None
    return a // b if a % b == 0 and 1 < a // b <= 12 and 1 < b <= 12 else None


def _kept(story: Story, needed: set[str], count: int, rng: Random) -> list[int]:
    """Indices of the sentences to keep: the first, the needed ones, and others with a number up to the count."""
    numbers = [set(story.numbers_in(i)) for i in range(len(story.sentences))]
    keep = {i for i, keys in enumerate(numbers) if i == 0 or needed & keys}
    others = [i for i, keys in enumerate(numbers) if keys and i not in keep]
    return sorted(keep | set(rng.sample(others, min(max(count - len(keep), 0), len(others)))))
