"""Log-probabilities of target tokens, from the hidden states that predict them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Shape suffixes: N target tokens, H hidden width, V vocabulary.

LOGITS_BYTES = 2**27  # of the float32 logits of one chunk: 261 tokens with Llama 3's vocabulary of 128,256


def target_logprobs(
    hidden_NH: Tensor, head_VH: Tensor, targets_N: Tensor, chunk: int | None = None, temperature: float = 1.0
) -> Tensor:
    """log P(y_t | y_<t, x) of each target token, in float32, shape [N]; summed over an answer it is s(y, x) (§5.3).

    `head_VH` is frozen; logits are divided by `temperature`. They exist for `chunk` tokens at a time (default:
    `LOGITS_BYTES`): if a gradient is needed, d log P / d hidden is computed with them and saved, one row of width H per
    token.
    """
    chunk = chunk or max(1, LOGITS_BYTES // (4 * head_VH.shape[0]))
    wants_gradient = torch.is_grad_enabled() and hidden_NH.requires_grad
    return _TargetLogprobs.apply(hidden_NH, head_VH.detach(), targets_N, chunk, temperature, wants_gradient)


class _TargetLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        head_VH: Tensor,
        targets_N: Tensor,
        chunk: int,
        temperature: float,
        wants_gradient: bool,
    ) -> Tensor:
        logprobs, gradients = [], []
        for hidden, targets in zip(hidden_NH.split(chunk), targets_N.split(chunk), strict=True):
            # In place from here on, as the logits are the largest tensor.
            logits_NV = torch.mm(hidden.to(head_VH.dtype), head_VH.T).float()
            if temperature != 1:
                logits_NV /= temperature
            logits_NV -= logits_NV.amax(dim=1, keepdim=True)
            picked_N = logits_NV.gather(1, targets[:, None])[:, 0]
            sums_N1 = logits_NV.exp_().sum(dim=1, keepdim=True)
            logprobs.append(picked_N - sums_N1[:, 0].log())
            if wants_gradient:
                # d log P(y) / d logits is (onehot(y) − P) / temperature.
                change_NV = logits_NV.div_(-sums_N1 * temperature)
                change_NV.scatter_add_(1, targets[:, None], torch.full_like(sums_N1, 1 / temperature))
                gradients.append(torch.mm(change_NV.to(head_VH.dtype), head_VH))
        if wants_gradient:
            ctx.save_for_backward(torch.cat(gradients))
        ctx.dtype = hidden_NH.dtype
        return torch.cat(logprobs)

    @staticmethod
    def backward(ctx: Any, gradient_N: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (gradient_NH,) = ctx.saved_tensors
        return (gradient_NH * gradient_N[:, None]).to(ctx.dtype), None, None, None, None, None
