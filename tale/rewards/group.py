"""Rewards for an answer's length relative to its group."""

from __future__ import annotations

from collections.abc import Sequence

from tale.config.training import GRPOConfig
from tale.rewards.outcome import Outcome


def group_relative(group: Sequence[Outcome], config: GRPOConfig) -> list[float]:
    """λ if right, else min(0, λ), with λ = 0.5 − (n − n_min) / (n_max − n_min) (Kimi k1.5, arXiv:2501.12599).

    0 if all answers are equally long.
    """
    shortest, longest = min(one.tokens for one in group), max(one.tokens for one in group)
    if shortest == longest:
        return [0.0] * len(group)
    lambdas = (0.5 - (one.tokens - shortest) / (longest - shortest) for one in group)
    return [of if one.correct else min(0.0, of) for one, of in zip(group, lambdas, strict=True)]


def linear(group: Sequence[Outcome], config: GRPOConfig) -> list[float]:
    """1[right] − pass rate · c · n / n_max, n_max the group's longest answer: prime-rl's linear length penalty.

    It vanishes where no answer of the group is right.
    """
    passed = sum(one.correct for one in group) / len(group)
    longest = max(one.tokens for one in group)
    return [one.correct - passed * config.linear_penalty * one.tokens / longest for one in group]
