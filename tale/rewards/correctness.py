"""Rewards for the answer itself: that it is right, and that it is in the format asked for."""

from __future__ import annotations

from collections.abc import Sequence

from tale.config.training import GRPOConfig
from tale.rewards.outcome import Outcome


def correct(group: Sequence[Outcome], config: GRPOConfig) -> list[float]:
    """1 if right, else 0; a cut-off answer is not right."""
    return [float(one.correct) for one in group]


def marked(group: Sequence[Outcome], config: GRPOConfig) -> list[float]:
    """1 if the answer is in `[[…]]`, else 0."""
    return [float(one.marked) for one in group]
