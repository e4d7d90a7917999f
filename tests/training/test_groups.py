"""From sampled answers to an example: graded, rewarded, compared, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tale.config.training import GRPOConfig
from tale.inference import Completion
from tale.training.groups import drawn_budget, prompt_of, scored_group
from tests.fake_engine import questions

(QUESTION,) = questions(1)  # whose answer is 7
CONFIG = GRPOConfig(max_completion_length=8, reward_funcs=["correct", "format"], reward_weights=[1, 0.5])


def sampled(text: str, *ids: int, finish: str = "stop") -> Completion:
    return Completion(text, len(ids), finish, 5, ids=ids, logprobs=tuple(-float(token) for token in ids))


ANSWERS = [
    sampled("[[7]]", 11, 12, 99),
    sampled("It is 7.", 13, 99),
    sampled("[[8]]", 99),
    sampled("[[7]] and", 1, 2, 3, 4, 5, 6, 7, 8, finish="length"),
]


def test_sampled_ids_are_trained_on_with_their_end_token() -> None:
    group = scored_group(CONFIG, QUESTION, None, [4, 5], ANSWERS)
    assert group.example.answers == ([11, 12, 99], [13, 99], [99], [1, 2, 3, 4, 5, 6, 7, 8])
    assert group.example.logprobs[1] == (-13, -99)
    assert (group.example.prompt, group.example.size) == ([4, 5], 4)


def test_rewards_advantages_and_sums_by_hand() -> None:
    """A cut-off answer is not right, even with the right number in brackets; its format counts."""
    group = scored_group(CONFIG, QUESTION, 4, [4, 5], ANSWERS)
    assert group.rewards == (1.5, 1, 0.5, 0.5)
    assert group.example.advantages == pytest.approx((0.625, 0.125, -0.375, -0.375))
    assert group.example.sums == pytest.approx(
        {
            **{"reward": 3.5, "reward/correct": 2, "reward/format": 3, "groups": 1, "groups_without_spread": 0},
            **{"accuracy": 2, "right": 2, "right_tokens": 5, "wrong": 2, "wrong_tokens": 9, "answer_tokens": 14},
            **{
                "truncated": 1,
                "asked": 4,
                "unanswered": 0,
                "empty": 0,
                "budget_error": 1 / 4 + 2 / 4 + 3 / 4 + 1,
                "over_budget": 1,
            },
        }
    )


def test_masked_cut_off_answers_have_no_advantage_but_count() -> None:
    config = replace(CONFIG, mask_truncated_completions=True)
    example = scored_group(config, QUESTION, None, [4], ANSWERS).example
    assert example.advantages == pytest.approx((0.625, 0.125, -0.375, 0))
    assert example.size == 4


def test_equal_rewards_are_counted_and_have_advantage_0() -> None:
    example = scored_group(CONFIG, QUESTION, None, [4], [ANSWERS[0]] * 3).example
    assert example.sums["groups_without_spread"] == 1
    assert example.advantages == (0, 0, 0)


def test_failed_and_empty_answers_are_counted() -> None:
    """A failed request is in no mean; an answer without tokens has a reward, but nothing to train on."""
    answers = [ANSWERS[0], Completion.failed("too long"), Completion("", 0, "stop", 5, ids=(), logprobs=())]
    group = scored_group(CONFIG, QUESTION, None, [4], answers)
    assert group.rewards == (1.5, 0)
    assert (group.example.answers, group.example.advantages, group.example.size) == (([11, 12, 99],), (0.75,), 2)
    assert (group.example.sums["unanswered"], group.example.sums["empty"], group.error) == (1, 1, "too long")
    nothing = scored_group(CONFIG, QUESTION, None, [4], [Completion.failed("too long")] * 2)
    assert (nothing.example.answers, nothing.example.size, nothing.example.sums["unanswered"]) == ((), 0, 2)


def test_a_budget_is_drawn_by_question_seed_and_step() -> None:
    config, asked = GRPOConfig(budget_range=[20, 23]), questions(50)
    drawn = [drawn_budget(config, q, 0, 5) for q in asked]
    assert {*drawn} == {20, 21, 22, 23}
    assert drawn == [drawn_budget(config, q, 0, 5) for q in asked]
    assert drawn != [drawn_budget(config, q, 0, 6) for q in asked]
    assert drawn != [drawn_budget(config, q, 1, 5) for q in asked]
    assert drawn_budget(GRPOConfig(), QUESTION, 0, 5) is None


def test_the_budget_is_stated_by_the_papers_line() -> None:
    assert prompt_of(CONFIG, QUESTION, 25).endswith("\nLet's think step by step and use less than 25 tokens:\n")
    assert prompt_of(CONFIG, QUESTION, None).endswith("\nLet's think step by step:\n")
