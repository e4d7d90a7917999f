"""The optimizers of the adapters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.nn import Parameter

from tale.config.training import OptimizerConfig


def make_optimizer(parameters: Iterable[Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW, or with 8-bit moments, a quarter of the memory except for tensors of fewer than 4,096 elements."""
    settings: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.name == "adamw":
        return torch.optim.AdamW(parameters, **settings)
    import bitsandbytes.optim as eight_bit  # takes seconds to import

    kind = {"adamw_8bit": eight_bit.AdamW8bit, "paged_adamw_8bit": eight_bit.PagedAdamW8bit}[config.name]
    return kind(parameters, **settings)
