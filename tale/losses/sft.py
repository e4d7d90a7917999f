"""Supervised fine-tuning on the searched targets (§5.3)."""

from __future__ import annotations

from torch import Tensor


def sft_loss(logprobs_B: Tensor, lengths_B: Tensor | None = None) -> Tensor:
    """L_CE = −Σ_i Σ_t log P(y_{i,t} | y_{i,<t}, x_i), from each example's summed log-probability; a scalar.

    The sum, not the mean: the training step divides by the global batch's examples (the paper's 1/N) or target tokens.
    With `lengths_B` each example counts equally, by the mean over its tokens.
    """
    return -(logprobs_B if lengths_B is None else logprobs_B / lengths_B).sum()
