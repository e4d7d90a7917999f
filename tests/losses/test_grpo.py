"""GRPO's loss on numbers small enough to work out by hand, and its KL term against TRL's on the same numbers."""

from __future__ import annotations

import math

import pytest
import torch

from tale.losses import group_advantages, grpo_loss, kl_to_reference

LN2 = math.log(2)


@pytest.mark.parametrize(
    ("rewards", "scale", "expected"),
    [
        ([1, 0, 0, 1], "none", [0.5, -0.5, -0.5, 0.5]),
        ([3, 3, 3], "none", [0, 0, 0]),
        ([7], "none", [0]),
        ([7], "group", [0]),
        ([1, 3], "group", [-1 / (math.sqrt(2) + 1e-4), 1 / (math.sqrt(2) + 1e-4)]),
        ([2, 2], "group", [0, 0]),
    ],
)
def test_advantages_by_hand(rewards: list[float], scale: str, expected: list[float]) -> None:
    assert group_advantages(torch.tensor(rewards, dtype=torch.float64), scale).tolist() == pytest.approx(expected)


def test_it_is_reinforce_with_the_mean_as_baseline() -> None:
    """Two words, one token an answer, π(0) = p: Σ (r − r̄) ∂log π by hand; ∂log p = 1 − p, ∂log(1 − p) = −p."""
    logit = torch.tensor(LN2, requires_grad=True)  # p = 2/3
    words = torch.stack([logit, torch.zeros(())]).log_softmax(0)
    logprobs, rewards = words[torch.tensor([0, 0, 1, 1])], torch.tensor([1.0, 0.0, 0.0, 0.0])
    loss = grpo_loss(logprobs, group_advantages(rewards))
    loss.backward()
    advantages = [3 / 4, -1 / 4, -1 / 4, -1 / 4]
    gradients = [1 / 3, 1 / 3, -2 / 3, -2 / 3]
    assert float(logit.grad) == pytest.approx(-sum(a * g for a, g in zip(advantages, gradients, strict=True)))


def test_a_token_with_advantage_0_has_no_gradient() -> None:
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)
    grpo_loss(logprobs, torch.tensor([0.0, 3.0])).backward()
    assert logprobs.grad.tolist() == [0, -3]


def test_the_clipped_ratio_by_hand() -> None:
    """Ratios 2, 2, 1/2, 1/2 with ε = 0.2: clipped where the objective would still gain."""
    sampled = torch.full((4,), -3.0)
    logprobs = (sampled + torch.tensor([LN2, LN2, -LN2, -LN2])).requires_grad_()
    loss = grpo_loss(logprobs, torch.tensor([1.0, -1.0, 1.0, -1.0]), sampling_logprobs=sampled, epsilon=0.2)
    assert float(loss) == pytest.approx(-(1.2 - 2 + 0.5 - 0.8))
    loss.backward()
    assert logprobs.grad.tolist() == pytest.approx([0, 2, -0.5, 0])


def test_truncated_importance_weights_by_hand() -> None:
    """Ratios 4 and 1/2, cap 2: weights 2 and 1/2, without a gradient of their own."""
    sampled = torch.tensor([-3.0, -1.0])
    logprobs = (sampled + torch.tensor([2 * LN2, -LN2])).requires_grad_()
    loss = grpo_loss(logprobs, torch.tensor([1.0, 10.0]), sampling_logprobs=sampled, cap=2.0)
    assert float(loss) == pytest.approx(-(2 * (-3 + 2 * LN2) + 5 * (-1 - LN2)))
    loss.backward()
    assert logprobs.grad.tolist() == pytest.approx([-2, -5])


def test_the_kl_term_is_trls() -> None:
    """As GRPOTrainer writes it, on the same log-probabilities; 0 where the policies agree."""
    logprobs, ref_logprobs = torch.tensor([[-1.0, -2.0, -0.1]]), torch.tensor([[-1.0, -0.5, -3.0]])
    theirs = torch.exp(ref_logprobs - logprobs) - (ref_logprobs - logprobs) - 1
    ours = kl_to_reference(logprobs[0], ref_logprobs[0])
    torch.testing.assert_close(ours, theirs[0], rtol=0, atol=0)
    assert ours[0] == 0
    assert (ours[1:] > 0).all()
