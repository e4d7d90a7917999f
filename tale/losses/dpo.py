"""Pairwise DPO (§5.3), and standard DPO by options of the same margin."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def dpo_margin(
    chosen_B: Tensor,
    rejected_B: Tensor,
    *,
    ref_logprobs: tuple[Tensor, Tensor] | None = None,
    lengths: tuple[Tensor, ...] | None = None,
    beta: float = 1.0,
) -> Tensor:
    """How much the model prefers the target y (chosen) over the vanilla answer y′ (rejected), in nats, shape [B].

    The paper's margin is s(y) − s(y′). With the reference model's `ref_logprobs` it is standard DPO's β·[(s(y) −
    s_ref(y)) − (s(y′) − s_ref(y′))] (arXiv:2305.18290, Eq. 7). With `lengths` each score is divided by its tokens.
    """
    if ref_logprobs is not None:
        chosen_B, rejected_B = chosen_B - ref_logprobs[0], rejected_B - ref_logprobs[1]
    if lengths is not None:
        chosen_B, rejected_B = chosen_B / lengths[0], rejected_B / lengths[1]
    return beta * (chosen_B - rejected_B)


def preference_loss(margin_B: Tensor) -> Tensor:
    """L_DPO = −Σ_i log [exp s(y_i) / (exp s(y_i) + exp s(y′_i))] = −Σ_i log σ(margin_i), summed over pairs."""
    return -functional.logsigmoid(margin_B).sum()
