"""Rewards of a group of answers to one question, as pure functions; a recipe's reward is a weighted sum of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tale.config.training import GRPOConfig
from tale.errors import UserError
from tale.rewards.correctness import correct, marked
from tale.rewards.group import group_relative, linear
from tale.rewards.length import lcpo_exact, lcpo_max, soft_overlong
from tale.rewards.outcome import Outcome

__all__ = ["REWARDS", "Outcome", "total_rewards"]

Reward = Callable[[Sequence[Outcome], GRPOConfig], list[float]]
# By the name in a recipe. `lcpo_exact`, `lcpo_max` and `linear` contain correctness, the others are added to it.
REWARDS: dict[str, Reward] = {
    "correct": correct,
    "format": marked,
    "lcpo_exact": lcpo_exact,
    "lcpo_max": lcpo_max,
    "group_relative": group_relative,
    "linear": linear,
    "soft_overlong": soft_overlong,
}


def total_rewards(
    group: Sequence[Outcome], config: GRPOConfig, where: str
) -> tuple[list[float], dict[str, list[float]]]:
    """The weighted sum for each answer, and the parts by name, unweighted; `where` names the question.

    Raises:
        UserError: a function raises an exception, or a reward is not a finite number.
    """
    parts: dict[str, list[float]] = {name: [] for name in config.reward_funcs}
    for name in parts if group else ():
        try:
            parts[name] = REWARDS[name](group, config)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"grpo.reward_funcs: {name} fails on {where} ({reason}); correct or remove it") from error
        if len(parts[name]) != len(group) or not all(map(math.isfinite, parts[name])):
            raise UserError(
                f"grpo.reward_funcs: {name} gives {parts[name]} on {where}; a reward is one finite number per answer"
            )
    weights = config.reward_weights or [1.0] * len(parts)
    columns = zip(*parts.values(), strict=True)
    return [sum(w * r for w, r in zip(weights, of, strict=True)) for of in columns], parts
