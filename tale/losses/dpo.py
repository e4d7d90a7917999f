"""Explicit pairwise DPO (§5.3), and the standard DPO as options of the same margin."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def dpo_margin(
    chosen_B: Tensor,
    rejected_B: Tensor,
    *,
    reference: tuple[Tensor, Tensor] | None = None,
    lengths: tuple[Tensor, ...] | None = None,
    beta: float = 1.0,
) -> Tensor:
    """How much the model prefers the target y over the vanilla answer y′, in nats, shape [B].

    The paper's is s(y) − s(y′). With `reference` log-probabilities it is standard DPO's β·[(s(y) − s_ref(y)) −
    (s(y′) − s_ref(y′))] (arXiv:2305.18290, Eq. 7); with `lengths` each score is divided by its token count first.
    """
    if reference is not None:
        chosen_B, rejected_B = chosen_B - reference[0], rejected_B - reference[1]
    if lengths is not None:
        chosen_B, rejected_B = chosen_B / lengths[0], rejected_B / lengths[1]
    return beta * (chosen_B - rejected_B)


def preference_loss(margin_B: Tensor) -> Tensor:
    """L_DPO = −Σ_i log [exp s(y_i) / (exp s(y_i) + exp s(y′_i))] = −Σ_i log σ(margin_i), summed over pairs."""
    return -functional.logsigmoid(margin_B).sum()
