"""Every reward by hand, after the papers' formulas; and what a broken one says."""

from __future__ import annotations

import itertools
import math

import pytest

from tale.config.training import REWARD_FUNCS, GRPOConfig
from tale.errors import UserError
from tale.rewards import REWARDS, Outcome, total_rewards

CONFIG = GRPOConfig(max_completion_length=100, soft_punish_cache=20, length_penalty=0.01)


def answers(*pairs: tuple[bool, int], budget: int | None = 50) -> list[Outcome]:
    return [Outcome(correct, tokens, budget=budget) for correct, tokens in pairs]


@pytest.mark.parametrize(
    ("name", "group", "expected"),
    [
        ("correct", answers((True, 9), (False, 9)), [1, 0]),
        ("lcpo_exact", answers((True, 50), (True, 80), (False, 40)), [1, 1 - 0.3, -0.1]),
        ("lcpo_max", answers((True, 50), (True, 30), (True, 99), (True, 110), (False, 1)), [0.5, 0.7, 0.01, 0, 0]),
        ("lcpo_max", answers((True, 1), budget=500), [1]),
        ("group_relative", answers((True, 10), (True, 30), (False, 20), (False, 30)), [0.5, -0.5, 0, -0.5]),
        ("group_relative", answers((False, 10), (True, 20)), [0, -0.5]),
        ("group_relative", answers((True, 7), (False, 7)), [0, 0]),
        ("linear", answers((True, 10), (True, 40), (False, 20), (False, 40)), [1 - 1 / 32, 1 - 1 / 8, -1 / 16, -1 / 8]),
        ("linear", answers((False, 10), (False, 90)), [0, 0]),
        ("soft_overlong", answers((True, 80), (True, 85), (False, 100), (True, 130)), [0, -0.25, -1, -1]),
    ],
)
def test_a_reward_by_hand(name: str, group: list[Outcome], expected: list[float]) -> None:
    assert REWARDS[name](group, CONFIG) == pytest.approx(expected)


def test_the_format_is_rewarded_for_brackets() -> None:
    assert REWARDS["format"]([Outcome(False, 5, marked=True), Outcome(True, 5)], CONFIG) == [1, 0]


def test_a_short_wrong_answer_never_beats_a_long_right_one() -> None:
    """Each with correctness once, at L1's α, over lengths and budgets up to 1,024."""
    config = GRPOConfig(max_completion_length=1024)
    for right, wrong, budget in itertools.product([1, 300, 1024], repeat=3):
        group = answers((True, right), (False, wrong), budget=budget)
        for funcs in (["lcpo_exact"], ["lcpo_max"], ["linear"], ["correct", "group_relative"]):
            config.reward_funcs = funcs
            first, second = total_rewards(group, config, "q")[0]
            assert first >= second, (funcs, group)


def test_the_recipes_names_are_the_functions() -> None:
    assert tuple(REWARDS) == REWARD_FUNCS


def test_a_sum_is_weighted_and_keeps_its_parts() -> None:
    config = GRPOConfig(max_completion_length=100, reward_funcs=["correct", "soft_overlong"], reward_weights=[2, 0.5])
    group = [Outcome(True, 100), Outcome(False, 1)]
    assert total_rewards(group, config, "q") == ([1.5, 0], {"correct": [1, 0], "soft_overlong": [-1, 0]})


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (
            lambda group, config: [math.nan] * len(group),
            r"correct gives \[nan, nan\] on gsm8k/7; a reward is one",
        ),
        (lambda group, config: [1.0], r"correct gives \[1\.0\] on gsm8k/7"),
        (lambda group, config: [1 / 0], r"correct fails on gsm8k/7 \(ZeroDivisionError: division by zero\)"),
    ],
)
def test_a_broken_reward_is_one_error(function, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REWARDS, "correct", function)
    with pytest.raises(UserError, match=said):
        total_rewards(answers((True, 1), (False, 2)), CONFIG, "gsm8k/7")
