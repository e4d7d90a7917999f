"""The built-in problems: the same for the same seed, disjoint splits, and solutions that are right at every length."""

import re
from collections import Counter
from decimal import Decimal
from statistics import median

import pytest

from tale.data.problems import generate, load, sampling
from tale.data.problems.sampling import WORDS
from tale.data.problems.solve import INVERSE, SIGNS, apply, equation
from tale.data.problems.templates import STORIES
from tale.errors import UserError

SIZES = {"warmup": 2000, "train": 1000, "test": 600, "test_new": 300}
EQUATION = re.compile(r"([\d.]*\d) ([-+×÷]) ([\d.]*\d) = ([\d.]*\d)")
# The least and the most approximate tokens of each length, and the band of its median, over all kinds.
BANDS = ((7, 12), (13, 40), (28, 60), (36, 130), (85, 300))
MEDIANS = ((7, 9), (15, 22), (30, 50), (65, 100), (115, 200))


def tokens(text: str) -> int:
    """About what a tokenizer that splits digits makes of it."""
    return len(re.findall(r"\d|[A-Za-z]+|[^\sA-Za-z\d]", text))


@pytest.fixture(scope="module")
def splits():
    return {split: generate(split, count, seed=3) for split, count in SIZES.items()}


@pytest.fixture(scope="module")
def problems(splits):
    return [problem for split in splits.values() for problem in split]


def test_the_seed_decides_and_a_longer_list_starts_with_the_shorter():
    assert load("train", 50, 5) == load("train", 100, 5)[:50]
    assert generate("train", 20, 5) == generate("train", 20, 5)
    assert {q.text for q in load("train", 50, 5)}.isdisjoint(q.text for q in load("train", 50, 6))
    assert load("test", 2, 9)[1].id == "problems/test-s9/1"


def test_the_problems_stay_what_they_are():
    """Change this only on purpose: every result on the built-in benchmark hangs on it."""
    assert [q.gold for q in load("test", 8, 0)] == ["75", "2.50", "33", "4", "28", "21.50", "30", "70"]


def test_splits_share_no_opening_whatever_the_seeds(splits):
    seen = {split: {p.question.context_hash for p in problems} for split, problems in splits.items()}
    other = {q.context_hash for q in load("train", 300, seed=77)}
    for split, count in SIZES.items():
        assert len(seen[split]) == len({p.question.question_hash for p in splits[split]}) == count
    assert sum(SIZES.values()) == len(set.union(*seen.values()))
    assert other.isdisjoint(seen["warmup"] | seen["test"] | seen["test_new"])


def test_new_templates_are_kept_out_of_the_rest(splits):
    names = {split: {p.template for p in problems} for split, problems in splits.items()}
    new = {story.name for story in STORIES if story.new}
    assert len({story.name for story in STORIES}) == len(STORIES) >= 35
    assert len(new) >= 0.15 * len(STORIES)
    assert names["test_new"] == new
    assert names["test"] == names["warmup"] == names["train"] == {story.name for story in STORIES} - new


@pytest.mark.parametrize("split", SIZES)
def test_mix_of_kinds(splits, split):
    share = Counter(p.kind for p in splits[split])
    for kind, wanted in {"lookup": 0.55, "one_step": 0.35, "two_steps": 0.1}.items():
        assert share[kind] / SIZES[split] == pytest.approx(wanted, abs=0.08)


def test_questions_read_like_short_stories(problems):
    for problem in problems:
        text = problem.question.text
        assert 15 <= len(text.split()) <= 80
        assert text.endswith("?")
        assert not re.search(r"[{}|]|  | a [aeio8]", text), text
        assert len(re.findall(r"\d[\d.]*", text)) + len(re.findall(rf"\b({'|'.join(WORDS[2:])})\b", text)) >= 2


def test_every_equation_is_true(problems):
    sides = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "×": lambda a, b: a * b, "÷": lambda a, b: a / b}
    for problem in problems:
        for solution in problem.solutions:
            found = EQUATION.findall(solution)
            assert len(found) == solution.count(" = "), solution
            for a, sign, b, c in found:
                assert sides[sign](Decimal(a), Decimal(b)) == Decimal(c), solution


def test_every_solution_ends_with_the_gold(problems):
    for problem in problems:
        for solution in problem.solutions:
            assert solution.splitlines()[-1] == f"Answer: [[{problem.question.gold}]]"
            assert solution.count("[[") == 1
        assert problem.solutions[0].count("\n") == 0


def numbers(text: str) -> list[Decimal]:
    spelled = "|".join(WORDS[2:])
    text = re.sub(rf"\b({spelled})\b", lambda match: str(WORDS.index(match[1])), text)
    return [Decimal(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]


def test_a_looked_up_answer_stands_in_the_story_once_and_a_computed_one_does_not(problems):
    for problem in problems:
        count = numbers(problem.question.text).count(Decimal(problem.question.gold))
        assert count == (problem.kind == "lookup"), problem.question


def test_the_steps_start_from_the_story_and_lead_to_the_gold(problems):
    """Read from the second solution alone: the operands are numbers of the story, or the result before."""
    for problem in problems:
        known = set(numbers(problem.question.text))
        steps = EQUATION.findall(problem.solutions[1])
        assert len(steps) == ("lookup", "one_step", "two_steps").index(problem.kind)
        for a, _, b, c in steps:
            assert {Decimal(a), Decimal(b)} <= known
            known.add(Decimal(c))
        if steps:
            assert steps[-1][-1] == problem.question.gold


def test_the_full_solution_goes_through_the_story_and_repeats_nothing(problems):
    for problem in problems:
        *story, _ = re.split(r"(?<=[.?]) (?=[A-Z])", problem.question.text)
        full = problem.solutions[4]
        assert all(full.count(f'"{sentence.removesuffix(".")}"') == 1 for sentence in story)
        said = [part.strip(' "') for part in re.split(r"(?<=[.?])[\"\s]+", full)]
        assert len(said) == len(set(said)), Counter(said).most_common(2)


def test_lengths(problems):
    lengths = [[tokens(solution) for solution in problem.solutions] for problem in problems]
    for row in lengths:
        assert row == sorted(set(row))
        assert row[4] >= 2 * row[2]
        assert row[4] >= 3 * row[1]
    for level, ((least, most), (low, high)) in enumerate(zip(BANDS, MEDIANS, strict=True)):
        column = [row[level] for row in lengths]
        assert least <= min(column)
        assert max(column) <= most
        assert low <= median(column) <= high


def test_phrasing_varies(splits):
    starts = Counter(" ".join(p.solutions[4].split()[:3]) for p in splits["warmup"])
    assert len(starts) >= 3
    assert len({p.question.text.rsplit(". ", 1)[1] for p in splits["warmup"]}) > 800


@pytest.mark.parametrize("sign", SIGNS)
def test_what_a_small_model_can_do(sign):
    """Nothing beyond it is accepted, and the inverse of what is accepted gives the first number back."""
    assert apply(7, "+", 95) is apply(5, "-", 9) is apply(13, "*", 14) is apply(50, "/", 7) is None
    for a in range(2, 100):
        for b in range(2, 100):
            value = apply(a, sign, b)
            if value is not None:
                assert value > 1
                assert equation(value, INVERSE[sign], b).endswith(f"= {a}")


def test_mistakes_are_told(monkeypatch):
    with pytest.raises(UserError, match="Did you mean 'warmup'"):
        load("warm-up", 1, 0)
    monkeypatch.setattr(sampling, "PATIENCE", 10)
    with pytest.raises(UserError, match="ask for fewer"):
        load("test_new", 1000, 0)
