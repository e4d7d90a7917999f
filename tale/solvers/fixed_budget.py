"""Chain of thought under the same budget for every question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tale.config.fields import opt
from tale.data.question import Question
from tale.errors import UserError
from tale.estimators import Estimate
from tale.inference import Sampling
from tale.inference.scheduler import Solver
from tale.solvers.budgeted import Budgeted


@dataclass
class FixedBudget(Budgeted):
    """Ask for chain of thought under a fixed budget."""

    renamed_from = "budget"

    budget: int | None = opt("budget in tokens", None, ge=1)

    @property
    def title(self) -> str:
        """The default name, without label and adapter."""
        return f"CoT, budget {self.budget}"

    def check(self, where: str, questions: Sequence[Question], sampling: Sampling) -> None:
        """Refuse a missing budget."""
        if not self.budget:
            raise UserError(f"{where}.budget: kind fixed_budget needs a positive number of tokens")

    def estimate(self, question: Question, sampling: Sampling) -> Solver[Estimate]:
        """The budget."""
        yield []
        return Estimate(self.budget)
