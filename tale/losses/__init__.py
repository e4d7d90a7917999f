"""Losses as pure functions of tensors. Shape suffixes: B examples or pairs, T positions, V vocabulary."""

from tale.losses.dpo import dpo_margin, preference_loss
from tale.losses.logprobs import sequence_logprobs
from tale.losses.sft import sft_loss

__all__ = ["dpo_margin", "preference_loss", "sequence_logprobs", "sft_loss"]
