"""Rewards for the length of one answer: against the budget in its prompt, or against the limit."""

from __future__ import annotations

from collections.abc import Sequence

from tale.config.training import GRPOConfig
from tale.rewards.outcome import Outcome


def lcpo_exact(group: Sequence[Outcome], config: GRPOConfig) -> list[float]:
    """1[right] − α · |n_gold − n|: LCPO-Exact of L1 (arXiv:2503.04697); n_gold is the prompt's budget."""
    return [one.correct - config.length_penalty * abs(_budget(one) - one.tokens) for one in group]


def lcpo_max(group: Sequence[Outcome], config: GRPOConfig) -> list[float]:
    """1[right] · clip(α · (n_gold − n) + 0.5, 0, 1): LCPO-Max, as the paper prints it."""
    left = (config.length_penalty * (_budget(one) - one.tokens) + 0.5 for one in group)
    return [one.correct * min(max(of, 0.0), 1.0) for one, of in zip(group, left, strict=True)]


def soft_overlong(group: Sequence[Outcome], config: GRPOConfig) -> list[float]:
    """0 up to L_max − L_cache tokens, falls to −1 at L_max, then −1 (DAPO, arXiv:2503.14476)."""
    cache = config.soft_punish_cache
    over = (one.tokens - (config.max_completion_length - cache) for one in group)
    return [-min(max(tokens / cache, 0.0), 1.0) for tokens in over]


def _budget(one: Outcome) -> int:
    assert one.budget is not None  # checked with the recipe
    return one.budget
