"""Losses as pure functions of tensors. Shape suffixes: B answers or pairs."""

from tale.losses.dpo import dpo_margin, preference_loss
from tale.losses.grpo import group_advantages, grpo_loss, kl_to_reference
from tale.losses.logprobs import target_logprobs
from tale.losses.sft import sft_loss

__all__ = [
    "dpo_margin",
    "group_advantages",
    "grpo_loss",
    "kl_to_reference",
    "preference_loss",
    "sft_loss",
    "target_logprobs",
]
