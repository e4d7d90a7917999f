"""ESC, early-stopping self-consistency (arXiv:2401.10480): it ends at a window of samples that all agree."""

from __future__ import annotations

from dataclasses import dataclass

from tale.config.fields import opt
from tale.solvers.self_consistency import SelfConsistency
from tale.solvers.voting import Votes


@dataclass
class EarlyStopping(SelfConsistency):
    """Sample chains in windows until the answers of one agree, or the next chain would exceed B; majority of all.

    A window with a chain without an answer does not agree.
    """

    label_of = "Early-stopping self-consistency"

    window: int = opt("chains of a window", 5, ge=2)

    def enough(self, votes: Votes) -> bool:
        """Whether the latest chain completes a window in which all answers agree."""
        window = votes.given[-self.window :]
        whole = len(votes.given) % self.window == 0
        return whole and window[0] is not None and all(group is window[0] for group in window)
