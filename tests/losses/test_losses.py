"""The losses on numbers small enough to work out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from tale.losses import dpo_margin, preference_loss, sft_loss, target_logprobs

LN3 = math.log(3)
# Two words, a hidden state of width 1 that is the first word's logit: ln 3 gives the probabilities 3/4 and 1/4.
HEAD = torch.tensor([[1.0], [0.0]])
SURE, EVEN = [LN3], [0.0]


def test_a_target_has_the_log_probability_of_its_word() -> None:
    hidden, targets = torch.tensor([SURE, SURE, EVEN]), torch.tensor([0, 1, 1])
    expected = [math.log(3 / 4), math.log(1 / 4), math.log(1 / 2)]
    assert target_logprobs(hidden, HEAD, targets).tolist() == pytest.approx(expected)


def test_its_gradient_by_hand() -> None:
    """d log p_0 / d logits = (1 − p_0, −p_1), of which the head passes on the first; times what comes from above."""
    hidden = torch.tensor([SURE, SURE], requires_grad=True)
    (target_logprobs(hidden, HEAD, torch.tensor([0, 1])) @ torch.tensor([1.0, 10.0])).backward()
    torch.testing.assert_close(hidden.grad, torch.tensor([[1 / 4], [10 * -3 / 4]]))


@pytest.mark.parametrize("chunk", [1, 3, 10, None])
def test_the_chunked_head_is_the_whole_head(chunk: int | None) -> None:
    """In float64 against torch's own cross entropy, value and gradient."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(10, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    head = torch.randn(50, 6, generator=generator, dtype=torch.float64)
    targets, above = torch.randint(50, (10,), generator=generator), torch.randn(10, generator=generator)
    theirs = -functional.cross_entropy(hidden @ head.T, targets, reduction="none")
    (expected,) = torch.autograd.grad((theirs * above).sum(), hidden)
    ours = target_logprobs(hidden, head, targets, chunk)
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-6, atol=1e-6)
    (gradient,) = torch.autograd.grad((ours * above).sum(), hidden)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(target_logprobs(hidden, head, targets, chunk), ours.detach(), rtol=0, atol=0)


def test_half_precision_logits_are_normalised_in_float32() -> None:
    logprobs = target_logprobs(
        torch.zeros(10, 4, dtype=torch.bfloat16), torch.zeros(258, 4, dtype=torch.bfloat16), torch.zeros(10).long()
    )
    assert logprobs.tolist() == pytest.approx([-math.log(258)] * 10, rel=1e-6)  # bfloat16 knows ln 258 to 1 in 256


def test_sft_sums_over_examples() -> None:
    # −ln(3/4 · 1/4) − ln(3/4)
    assert float(sft_loss(torch.tensor([math.log(3 / 16), math.log(3 / 4)]))) == pytest.approx(math.log(64 / 9))


def test_sft_of_means_counts_long_and_short_examples_equally() -> None:
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


def test_the_gradient_raises_chosen_and_lowers_rejected_equally() -> None:
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
        ({"ref_logprobs": REFERENCE}, [1 - -2, -1 - 4]),
        ({"lengths": LENGTHS}, [-1 - -3, -2 - -4]),
        ({"ref_logprobs": REFERENCE, "lengths": LENGTHS, "beta": 2.0}, [2 * (1 / 2 - -2 / 4), 2 * (-1 / 3 - 4 / 1)]),
    ],
    ids=["paper", "beta", "reference", "length", "all"],
)
def test_margins_by_hand(options: dict, margins: list[float]) -> None:
    assert dpo_margin(CHOSEN, REJECTED, **options).tolist() == pytest.approx(margins)
