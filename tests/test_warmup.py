"""The warm start's examples: solutions as long as the prompt asks for, and long ones where the budget is too small."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tale import prompts
from tale.chat import Chat
from tale.data import problems
from tale.data.examples import Example
from tale.data.question import Question
from tale.data.warmup import LEVELS, LONG, PROMPTS, _budget, warmup_examples
from tale.models.adapters import read_card

COUNT = 300
BUDGET = re.compile(r"use less than (\d+) tokens:\n")


@pytest.fixture(scope="module")
def chat(tiny_tokenizer) -> Chat:
    return Chat(tiny_tokenizer)


@pytest.fixture(scope="module")
def examples(chat: Chat) -> list[tuple[Question, Example]]:
    return warmup_examples(COUNT, seed=3, chat=chat)


@pytest.fixture(scope="module")
def solutions() -> dict[str, tuple[str, ...]]:
    return {p.question.id: p.solutions for p in problems.generate("warmup", COUNT, seed=3)}


def asked(question: Question, example: Example, chat: Chat) -> tuple[str, int | None]:
    """Which prompt the example has, and its budget."""
    for name, make in (("vanilla", prompts.vanilla), ("direct", prompts.direct), ("estimate", prompts.estimate)):
        if example.prompt == chat.prompt_ids(make(question)):
            return name, None
    budget = int(BUDGET.search(chat.decode(example.prompt)).group(1))
    assert example.prompt == chat.prompt_ids(prompts.budgeted(question, budget))
    return "budget", budget


def test_vanilla_gets_the_longest_solution_and_direct_the_bare_answer(chat, examples, solutions) -> None:
    for question, example in examples:
        name, _ = asked(question, example, chat)
        if name in ("vanilla", "direct"):
            wanted = solutions[question.id][LONG if name == "vanilla" else 0]
            assert example.answers == (chat.target_ids(wanted),)


def test_under_a_budget_the_answer_is_the_longest_that_fits_and_long_where_none_does(chat, examples, solutions) -> None:
    """Tokens strictly less than the budget, as the prompt says. The bare answer line is no chain of thought."""
    fitted = Counter()
    for question, example in examples:
        name, budget = asked(question, example, chat)
        if name != "budget":
            continue
        lengths = [len(chat.target_ids(solution)) for solution in solutions[question.id]]
        fits = [level for level in range(1, LONG + 1) if lengths[level] < budget]
        level = max(fits, default=LONG)
        assert example.answers == (chat.target_ids(solutions[question.id][level]),)
        fitted[max(fits, default=0)] += 1
    assert fitted.keys() == LEVELS.keys()


@pytest.mark.parametrize(
    ("level", "budgets"), [(0, {1, 2}), (1, {3}), (2, {4, 5, 6}), (3, {7, 8}), (LONG, {*range(9, 17)})]
)
def test_a_budget_is_any_under_which_its_solution_is_the_longest_that_fits(level: int, budgets: set) -> None:
    """Solutions of 1, 2, 3, 6 and 8 tokens; "less than" a budget, and at most twice the longest."""
    assert {_budget(Random(i), [1, 2, 3, 6, 8], level) for i in range(500)} == budgets


def test_a_budget_too_small_for_any_gives_more_tokens_than_one_that_fits(chat, examples) -> None:
    """Token elasticity (§3)."""
    by_budget = [(b, len(e.answers[0])) for q, e in examples if (b := asked(q, e, chat)[1])]
    small = [tokens for budget, tokens in by_budget if tokens >= budget]
    fitting = sorted(tokens for budget, tokens in by_budget if tokens < budget)
    assert min(small) > fitting[len(fitting) // 2]


def test_the_estimate_is_a_round_budget_under_which_the_middle_solution_just_fits(chat, examples, solutions) -> None:
    for question, example in examples:
        if asked(question, example, chat)[0] == "estimate":
            budget = int(re.fullmatch(r"Budget: \[\[(\d+)\]\]", chat.decode(example.answers[0])).group(1))
            tokens = len(chat.target_ids(solutions[question.id][2]))
            assert budget % 5 == 0
            assert tokens <= budget < tokens + 5


def test_the_prompts_come_in_the_stated_shares(chat, examples) -> None:
    counts = Counter(asked(q, e, chat)[0] for q, e in examples)
    for name, share in PROMPTS.items():
        assert abs(counts[name] / COUNT - share) < 3 * (share * (1 - share) / COUNT) ** 0.5
    assert sum(PROMPTS.values()) == pytest.approx(1)
    assert sum(LEVELS.values()) == pytest.approx(1)


def test_no_story_is_one_of_training_or_test(examples) -> None:
    warm = {question.context_hash for question, _ in examples}
    assert len(warm) == COUNT
    for split in ("train", "test", "test_new"):
        assert warm.isdisjoint(q.context_hash for q in problems.load(split, 200, seed=3))


def test_the_seed_decides(chat, examples) -> None:
    assert warmup_examples(20, 3, chat) == examples[:20]
    assert warmup_examples(20, 4, chat) != examples[:20]


def test_the_shipped_adapters_card_knows_its_questions() -> None:
    """All but those that its recipe holds out, one in a hundred."""
    card = read_card(Path(__file__).parents[1] / "warmup" / "smollm2")
    generated = [p.question for p in problems.generate("warmup", 100, seed=0)]
    assert sum(q.question_hash in card.questions for q in generated) >= 97
    assert sum(q.context_hash in card.contexts for q in generated) >= 97
