"""The losses on numbers small enough to work out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tale.losses import dpo_margin, preference_loss, sequence_logprobs, sft_loss

LN3 = math.log(3)
# Two words: logits (ln 3, 0) give them the probabilities 3/4 and 1/4, logits (0, 0) a half each.
SURE, EVEN = [LN3, 0.0], [0.0, 0.0]


def test_a_rows_score_is_the_sum_over_its_targets_alone() -> None:
    logits = torch.tensor([[SURE, SURE, EVEN], [EVEN, SURE, SURE], [SURE, SURE, SURE]])
    labels = torch.tensor([[0, 1, 1], [-100, -100, 0], [-100, -100, -100]])
    expected = [math.log(3 / 4) + math.log(1 / 4) + math.log(1 / 2), math.log(3 / 4), 0.0]
    assert sequence_logprobs(logits, labels).tolist() == pytest.approx(expected)


def test_logits_that_are_not_targets_get_no_gradient() -> None:
    logits = torch.tensor([[SURE, SURE]], requires_grad=True)
    sequence_logprobs(logits, torch.tensor([[-100, 0]])).sum().backward()
    assert logits.grad is not None
    # d log p_0 / d logits = (1 − p_0, −p_1)
    torch.testing.assert_close(logits.grad, torch.tensor([[[0.0, 0.0], [0.25, -0.25]]]))


def test_half_precision_logits_are_summed_in_float32() -> None:
    logits = torch.zeros(1, 10, 258, dtype=torch.bfloat16)
    (total,) = sequence_logprobs(logits, torch.zeros(1, 10, dtype=torch.long)).tolist()
    assert total == pytest.approx(-10 * math.log(258), rel=1e-6)  # bfloat16 knows ln 258 to 1 in 256


def test_sft_sums_over_tokens_and_examples() -> None:
    logits = torch.tensor([[SURE, SURE], [EVEN, SURE]])
    labels = torch.tensor([[0, 1], [-100, 0]])
    # −ln(3/4) − ln(1/4) − ln(3/4)
    assert float(sft_loss(sequence_logprobs(logits, labels))) == pytest.approx(math.log(64 / 9))


def test_sft_of_means_counts_a_long_and_a_short_example_alike() -> None:
    logprobs, lengths = torch.tensor([-6.0, -1.0]), torch.tensor([3, 1])
    assert float(sft_loss(logprobs, lengths)) == 6 / 3 + 1


@given(st.floats(-40, 0), st.floats(-40, 0))
def test_the_preference_loss_is_the_papers_fraction(chosen: float, rejected: float) -> None:
    fraction = math.exp(chosen) / (math.exp(chosen) + math.exp(rejected))
    margin = dpo_margin(*torch.tensor([[chosen], [rejected]], dtype=torch.float64))
    assert float(preference_loss(margin)) == pytest.approx(-math.log(fraction), rel=1e-9, abs=1e-15)


def test_the_preference_loss_sums_pairs_and_survives_any_margin() -> None:
    # −ln σ(ln 3) = −ln 3/4; far out it is the margin's negative, or nothing.
    assert float(preference_loss(torch.tensor([LN3, 0.0]))) == pytest.approx(math.log(4 / 3) + math.log(2))
    assert preference_loss(torch.tensor([-1000.0])) == 1000
    assert preference_loss(torch.tensor([1000.0])) == 0


def test_the_gradient_raises_the_chosen_score_and_lowers_the_rejected_one_alike() -> None:
    chosen, rejected = torch.tensor([-1.0], requires_grad=True), torch.tensor([-1.0 - LN3], requires_grad=True)
    preference_loss(dpo_margin(chosen, rejected)).backward()
    # −(1 − σ(ln 3)) = −1/4
    assert float(chosen.grad) == pytest.approx(-0.25)
    assert float(rejected.grad) == pytest.approx(0.25)


CHOSEN, REJECTED = torch.tensor([-2.0, -6.0]), torch.tensor([-12.0, -4.0])
REFERENCE = (torch.tensor([-3.0, -5.0]), torch.tensor([-10.0, -8.0]))
LENGTHS = (torch.tensor([2, 3]), torch.tensor([4, 1]))


@pytest.mark.parametrize(
    ("options", "margins"),
    [
        ({}, [10, -2]),
        ({"beta": 0.5}, [5, -1]),
        ({"reference": REFERENCE}, [1 - -2, -1 - 4]),
        ({"lengths": LENGTHS}, [-1 - -3, -2 - -4]),
        ({"reference": REFERENCE, "lengths": LENGTHS, "beta": 2.0}, [2 * (1 / 2 - -2 / 4), 2 * (-1 / 3 - 4 / 1)]),
    ],
    ids=["paper", "beta", "reference", "length", "all"],
)
def test_margins_by_hand(options: dict, margins: list[float]) -> None:
    assert dpo_margin(CHOSEN, REJECTED, **options).tolist() == pytest.approx(margins)
