"""From templates to problems, and problems to splits. Everything is drawn from one `Random(f"{split}/{seed}")`.

Why not a generator library: the grade-school templates of reasoning-gym ask for many more steps, and larger numbers,
than a model of 135 M parameters can do; these stories look like GSM8K-Zero, where most answers stand in the story.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random

from tale.data.problems.solve import Case, Quantity, Step, apply, solve
from tale.data.problems.story import Ask, Story
from tale.data.problems.templates import HE, SHE, STORIES
from tale.data.question import Question
from tale.errors import UserError, nearest

# The share, in tenths, of all openings that belongs to each split: an opening's own digest decides, whatever the seed.
TENTHS = {"warmup": range(5), "train": range(5, 8), "test": range(8, 9), "test_new": range(9, 10)}
KINDS = {"lookup": 55, "one_step": 35, "two_steps": 10}
SENTENCES = {"lookup": (2, 3), "one_step": (2, 3), "two_steps": (2, 3)}
SPELLED = 0.1  # the share of stories that write small numbers as words, as GSM8K-Zero now and then does
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
PATIENCE = 5000  # openings in a row that are seen before or another split's
TRIES = 5000


@dataclass(frozen=True)
class Problem:
    """A question and its worked solution at five lengths, from the bare answer line to a careful check."""

    question: Question
    solutions: tuple[str, str, str, str, str]
    kind: str
    template: str


def generate(split: str, count: int, seed: int) -> list[Problem]:
    """The first `count` problems of a split; a longer list starts with the shorter one."""
    if split not in TENTHS:
        raise UserError(f"no split {split!r} of the problems: use {', '.join(TENTHS)}.{nearest(split, TENTHS)}")
    problems = list(islice(_problems(split, seed), count))
    if len(problems) < count:
        raise UserError(f"problems/{split}: {count} questions asked for, only {len(problems)} found: ask for fewer")
    return problems


def _problems(split: str, seed: int) -> Iterator[Problem]:
    rng = Random(f"{split}/{seed}")
    stories = [story for story in STORIES if story.new == (split == "test_new")]
    seen, rejected = set(), 0
    while rejected < PATIENCE:
        kind = rng.choices(list(KINDS), KINDS.values())[0]
        story, case = _case(kind, stories, rng)
        question = Question(f"problems/{split}-s{seed}/{len(seen)}", case.text, case.gold)
        opening = question.context_hash
        if opening in seen or int(opening, 16) % 10 not in TENTHS[split]:
            rejected += 1
            continue
        seen.add(opening)
        rejected = 0
        # The solutions have their own dice: how they are worded must not change which questions follow.
        yield Problem(question, solve(case, Random(case.text)), kind, story.name)


def _case(kind: str, stories: list[Story], rng: Random) -> tuple[Story, Case]:
    """A story with its numbers drawn, and one question of the kind about it."""
    steps = list(KINDS).index(kind)
    if not steps:
        story = rng.choice(stories)
        key = rng.choice(list(story.numbers))
        ask, keys = None, [key]
    else:
        story, ask = rng.choice([(s, ask) for s in stories for ask in s.asks if len(ask.steps) == steps])
        keys = ask.keys
    words = _words(story, rng)
    quantities, worked = _numbers(story, ask, words, rng)
    questions = ask.questions if ask else story.numbers[keys[0]].questions
    needed = tuple(quantities[key] for key in keys)
    goal = worked[-1].result if ask else needed[0]
    kept = _kept(story, set(keys), rng.choice(SENTENCES[kind]), rng)
    sentences = _sentences(story, kept, words, quantities, rng)
    return story, Case(sentences, rng.choice(questions).format_map(words), needed, goal, worked)


def _words(story: Story, rng: Random) -> dict[str, str]:
    """Everything that fills a slot but the numbers."""
    she = rng.random() < 0.5
    name = rng.choice((SHE if she else HE).split("/"))
    other = rng.choice([other for other in f"{SHE}/{HE}".split("/") if other != name])
    he, his = ("she", "her") if she else ("he", "his")
    persons = {"n": name, "m": other, "he": he, "his": his, "He": he.capitalize(), "His": his.capitalize()}
    return persons | {slot: rng.choice(words.split("/")) for slot, words in story.words.items()}


def _numbers(story: Story, ask: Ask | None, words: dict, rng: Random) -> tuple[dict[str, Quantity], tuple[Step, ...]]:
    """Numbers that are all different, the results of the steps included, and easy enough to work with."""
    for _ in range(TRIES):
        drawn = {key: number.draw(rng) for key, number in story.numbers.items()}
        quantities = {
            key: Quantity(story.numbers[key].measures.format_map(words), str(value), story.numbers[key].unit)
            for key, value in drawn.items()
        }
        steps = _steps(ask, quantities, words) if ask else ()
        if steps is None:
            continue
        values = {*drawn.values(), *(int(step.result.value) for step in steps)}
        if len(values) == len(drawn) + len(steps):
            return quantities, steps
    raise AssertionError(f"template {story.name!r}: no numbers fit {ask and ask.questions}")


def _steps(ask: Ask, quantities: dict[str, Quantity], words: dict) -> tuple[Step, ...] | None:
    steps = []
    for goal, left, sign, right in ask.steps:
        a, b = (steps[-1].result if key == "@" else quantities[key] for key in (left, right))
        value = apply(int(a.value), sign, int(b.value))
        if value is None:
            return None
        units = {a.unit, b.unit} if sign in "+-" else {a.unit or b.unit}
        unit = units.pop() if len(units) == 1 else ""
        steps.append(Step(a, sign, b, Quantity(goal.format_map(words), str(value), unit)))
    return tuple(steps)


def _kept(story: Story, needed: set[str], count: int, rng: Random) -> list[int]:
    """Which sentences stay: the first, those that are needed, and others with a number up to the count."""
    keep = {i for i, keys in enumerate(story.keys) if i == 0 or needed & set(keys)}
    others = [i for i, keys in enumerate(story.keys) if keys and i not in keep]
    return sorted(keep | set(rng.sample(others, min(max(count - len(keep), 0), len(others)))))


def _sentences(story: Story, kept: list[int], words: dict, quantities: dict[str, Quantity], rng: Random):
    """The sentences filled in, each with its quantities."""
    spelled = rng.random() < SPELLED
    shown = words | {key: _shown(q, spelled) for key, q in quantities.items()}
    return tuple((story.sentences[i].format_map(shown), tuple(quantities[key] for key in story.keys[i])) for i in kept)


def _shown(quantity: Quantity, spelled: bool) -> str:
    small = quantity.value in map(str, range(2, 13)) and quantity.unit not in ("$", "%")
    return WORDS[int(quantity.value)] if spelled and small else quantity.value
