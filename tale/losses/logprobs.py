"""Log-probability of an answer under a model's logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

IGNORE = -100


def sequence_logprobs(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    """s(y, x) = Σ_t log P(y_t | y_<t, x): the summed log-probability of each row's target tokens (§5.3), shape [B].

    `logits_BTV[:, t]` predicts `labels_BT[:, t]` (already shifted); positions labelled `IGNORE` count nothing. Only
    target positions are turned into float32, since the vocabulary is wide and prompts are long.
    """
    target = labels_BT != IGNORE
    logprobs = -functional.cross_entropy(logits_BTV[target].float(), labels_BT[target], reduction="none")
    rows = target.nonzero()[:, 0]
    return torch.zeros(len(labels_BT), device=logprobs.device).index_add(0, rows, logprobs)
