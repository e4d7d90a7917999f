"""Group-relative policy optimisation in Dr. GRPO's form (arXiv:2503.20783). Shapes: K answers of a group, N tokens."""

from __future__ import annotations

import torch
from torch import Tensor

SPREAD_FLOOR = 1e-4  # added to a standard deviation that divides, as in TRL


def group_advantages(rewards_K: Tensor, scale_rewards: str = "none") -> Tensor:
    """Each answer's reward minus its group's mean, shape [K]; exactly 0 if all rewards are equal.

    With `scale_rewards="group"` it is divided by the group's standard deviation, as in the first GRPO
    (arXiv:2402.03300).
    """
    if (rewards_K == rewards_K[:1]).all():
        return torch.zeros_like(rewards_K)
    advantages_K = rewards_K - rewards_K.mean()
    return advantages_K / (rewards_K.std() + SPREAD_FLOOR) if scale_rewards == "group" else advantages_K


def grpo_loss(
    logprobs_N: Tensor,
    advantages_N: Tensor,
    *,
    sampling_logprobs: Tensor | None = None,
    epsilon: float | None = None,
    cap: float | None = None,
) -> Tensor:
    """−Σ_t A_t · log π(y_t | y_<t, x), summed over the tokens of all answers; a scalar.

    The sum: the training step divides by answers × the most tokens of an answer, a constant. `sampling_logprobs` of the
    same tokens, shape [N], are those of the policy that sampled them, π_s. With them and

    - `epsilon` (several updates on the same answers) it is −Σ_t min(r A, clip(r, 1 − ε, 1 + ε) A), r = π / π_s;
    - `cap` (sampled by another engine or in another precision) each term is weighted by min(π / π_s, cap), which has no
      gradient (truncated importance sampling).
    """
    if sampling_logprobs is None or (epsilon is None and cap is None):
        return -(advantages_N * logprobs_N).sum()
    ratio_N = (logprobs_N - sampling_logprobs).exp()
    if epsilon is not None:
        clipped_N = ratio_N.clamp(1 - epsilon, 1 + epsilon)
        return -torch.minimum(ratio_N * advantages_N, clipped_N * advantages_N).sum()
    return -(ratio_N.detach().clamp(max=cap) * advantages_N * logprobs_N).sum()


def kl_to_reference(logprobs_N: Tensor, ref_logprobs_N: Tensor) -> Tensor:
    """Estimate of KL(π ‖ π_ref) from sampled tokens, π_ref/π − log(π_ref/π) − 1, shape [N] (k3; TRL's)."""
    change_N = ref_logprobs_N - logprobs_N
    return change_N.exp() - change_N - 1
