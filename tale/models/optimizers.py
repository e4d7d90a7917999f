"""The optimizers of the adapters."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.nn import Parameter

from tale.config import OptimConfig


def make_optimizer(parameters: Iterable[Parameter], config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW. In 8 bits its two moments take a quarter of the memory, but for tensors of fewer than 4,096 elements."""
    settings = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.kind == "adamw":
        return torch.optim.AdamW(parameters, **settings)
    from bitsandbytes import optim  # seconds to import, and seldom wanted

    kind = {"adamw_8bit": optim.AdamW8bit, "paged_adamw_8bit": optim.PagedAdamW8bit}[config.kind]
    return kind(parameters, **settings)
