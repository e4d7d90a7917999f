"""The generated questions: the same for the same seed, disjoint splits, and answers that follow from their stories."""

import hashlib
import re
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from tale.data.question import Question
from tale.errors import UserError
from tale.tasks import problems
from tale.tasks.problems import load, sampling
from tale.tasks.problems.sampling import WORDS, apply

COUNT = 600
# Of the questions at seed 0, one "id, text, gold" a line, tabs between.
DIGESTS = {
    "train": "07aa1cbf5a985f9d904a0b2bac39c5579620097dc5141c64510456a75c9b21ff",
    "test": "c37027a33f28a2b13b779e48d65dfeb910913c01d29177298754e6ee0ff72337",
    "test_new": "dbc69ce1da14dd1730c16dfc2b0c861ed62aaa1997858ced497650d9676e8643",
}
STORIES = yaml.safe_load(Path(problems.__file__).with_name("stories.yaml").read_text(encoding="utf-8"))["stories"]
SIGNS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}
UNDONE = {"+": "-", "-": "+", "*": "/", "/": "*"}


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Question]]:
    return {split: load(split, COUNT, seed=0) for split in DIGESTS}


@pytest.fixture(scope="module")
def questions(splits) -> list[Question]:
    return [question for split in splits.values() for question in split]


def test_a_longer_list_of_a_seed_starts_with_the_shorter():
    assert load("train", 50, 5) == load("train", 100, 5)[:50]
    assert {q.text for q in load("train", 50, 5)}.isdisjoint(q.text for q in load("train", 50, 6))
    assert load("test", 2, 9)[1].id == "problems/test-s9/1"


@pytest.mark.parametrize("split", DIGESTS)
def test_the_questions_stay_what_they_are(splits, split):
    """Change this only on purpose: every result on the generated questions hangs on it."""
    lines = "\n".join(f"{q.id}\t{q.text}\t{q.gold}" for q in splits[split])
    assert hashlib.sha256(lines.encode()).hexdigest() == DIGESTS[split]


def test_splits_share_no_opening_whatever_the_seeds(splits):
    seen = {split: {q.context_hash for q in questions} for split, questions in splits.items()}
    assert all(len(hashes) == COUNT for hashes in seen.values())
    assert len(set.union(*seen.values())) == 3 * COUNT
    assert {q.context_hash for q in load("train", 300, seed=77)}.isdisjoint(seen["test"] | seen["test_new"])


def pattern(template: str, story: dict) -> re.Pattern:
    """A template as a regular expression, a slot standing for the same words wherever it is repeated."""
    seen, parts = set(), re.split(r"\{(\w+)\}", template)
    parts[::2] = map(re.escape, parts[::2])
    for i in range(1, len(parts), 2):
        slot = parts[i]
        words = [r"[\d.]*\d", "[a-z]+"] if slot in story["numbers"] else story.get("words", {}).get(slot, [r"\w+"])
        parts[i] = f"(?P={slot})" if slot in seen else f"(?P<{slot}>{'|'.join(words)})"
        seen.add(slot)
    return re.compile("".join(parts))


def asked(story: dict) -> list[tuple[re.Pattern, str]]:
    """How a story's numbers and formulas are asked for."""
    formulas = [*story["asks"]]
    formulas += [[key, f"What is {measures}?", *asks] for key, (_, measures, *asks) in story["numbers"].items()]
    return [(pattern(ask, story), formula) for formula, *asks in formulas for ask in asks]


SENTENCES = [[pattern(sentence, story) for sentence in story["sentences"]] for story in STORIES]
ASKED = [asked(story) for story in STORIES]


def solved(question: Question) -> tuple[str, int, Decimal]:
    """The template of a question, its steps, and its answer, worked out from what can be read in its text."""
    *told, last = re.split(r"(?<=[.?]) (?=[A-Z])", question.text)
    (index,) = [i for i, sentences in enumerate(SENTENCES) if sentences[0].fullmatch(told[0])]
    read = {}
    for sentence in told:
        (found,) = filter(None, (each.fullmatch(sentence) for each in SENTENCES[index]))
        read |= found.groupdict()
    numbers = {key: number(read[key]) for key in STORIES[index]["numbers"] if key in read}
    asks = [(found.groupdict(), formula) for ask, formula in ASKED[index] if (found := ask.fullmatch(last))]
    (formula,) = [formula for slots, formula in asks if slots.items() <= (slots | read).items()]
    result, steps = numbers.get(formula), re.findall(r"(\S+) ([-+*/]) (\w+|@)", formula)
    for left, sign, right in steps:
        a, b = (int(result if key == "@" else numbers[key]) for key in (left, right))
        result = SIGNS[sign](a, b)
        assert SIGNS[UNDONE[sign]](result, b) == a
    return STORIES[index]["name"], len(steps), Decimal(result)


def number(text: str) -> Decimal:
    return Decimal(WORDS.index(text) if text in WORDS else text)


@pytest.fixture(scope="module")
def solutions(splits) -> dict[str, list[tuple[str, int, Decimal]]]:
    return {split: [solved(question) for question in questions] for split, questions in splits.items()}


def test_every_gold_follows_from_story_and_formula(splits, solutions):
    for split, questions in splits.items():
        assert [Decimal(q.gold) for q in questions] == [answer for _, _, answer in solutions[split]]


def test_new_templates_are_kept_out_of_the_rest(solutions):
    names = {split: {name for name, _, _ in solved} for split, solved in solutions.items()}
    new = {story["name"] for story in STORIES if story.get("new")}
    assert names["test_new"] == new
    assert names["test"] == names["train"] == {story["name"] for story in STORIES} - new


@pytest.mark.parametrize("split", DIGESTS)
def test_half_the_questions_are_looked_up_a_tenth_has_two_steps(solutions, split):
    steps = Counter(steps for _, steps, _ in solutions[split])
    for count, share in {0: 0.55, 1: 0.35, 2: 0.1}.items():
        assert steps[count] / COUNT == pytest.approx(share, abs=0.04)


def test_only_a_looked_up_answer_stands_in_the_story(splits, solutions):
    """And there it stands once."""
    for split, questions in splits.items():
        for question, (_, steps, answer) in zip(questions, solutions[split], strict=True):
            spelled = re.sub(
                r"\b[a-z]+\b", lambda word: str(number(word[0])) if word[0] in WORDS else "", question.text
            )
            told = [Decimal(digits) for digits in re.findall(r"\d+(?:\.\d+)?", spelled)]
            assert told.count(answer) == (not steps), question


def test_questions_read_like_short_stories(questions):
    for question in questions:
        assert 15 <= len(question.text.split()) <= 80
        assert question.text.endswith("?")
        assert not re.search(r"[{}|]|  | a [aeio8]", question.text), question.text
    assert len({q.text.rsplit(". ", 1)[1] for q in questions}) > 800


@pytest.mark.parametrize("sign", SIGNS)
def test_what_a_small_model_can_do(sign):
    """Nothing beyond it is accepted, and the inverse of what is accepted gives the first number back."""
    assert apply(7, "+", 95) is apply(5, "-", 9) is apply(13, "*", 14) is apply(50, "/", 7) is None
    for a in range(2, 100):
        for b in range(2, 100):
            value = apply(a, sign, b)
            assert value is None or (value > 1 and SIGNS[UNDONE[sign]](value, b) == a)


def test_mistakes_are_told(monkeypatch):
    with pytest.raises(UserError, match="Did you mean 'train'"):
        load("trian", 1, 0)
    monkeypatch.setattr(sampling, "PATIENCE", 10)
    with pytest.raises(UserError, match=r"lower task\.limit"):
        load("test_new", 1000, 0)
