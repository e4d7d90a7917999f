"""Adaptive-Consistency (arXiv:2305.11860): self-consistency that ends when the majority is unlikely to change."""

from __future__ import annotations

from dataclasses import dataclass

from scipy import special

from tale.config.fields import opt
from tale.solvers.self_consistency import SelfConsistency
from tale.solvers.voting import Votes


@dataclass
class AdaptiveConsistency(SelfConsistency):
    """Sample chains until the majority stays with a probability of `confidence`, or the next would exceed B."""

    label_of = "Adaptive consistency"

    confidence: float = opt("stop when the majority stays with this probability", 0.95, gt=0, lt=1)

    def enough(self, votes: Votes) -> bool:
        """Whether the leading answer is safe from the second."""
        counts = sorted((group.count for group in votes.groups), reverse=True)
        return bool(counts) and probability_to_stay(*(*counts, 0)[:2]) >= self.confidence


def probability_to_stay(first: int, second: int) -> float:
    """The probability that of two answers with these votes the first is the likelier: Beta(first + 1, second + 1)."""
    return float(special.betainc(second + 1, first + 1, 0.5))
