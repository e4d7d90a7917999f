"""TALE-EP (§5.2): chain of thought under a budget estimated by a model (zero-shot, Fig 5) or a trained estimator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tale.config.fields import opt
from tale.config.sections import ModelConfig
from tale.data.question import Question
from tale.errors import UserError
from tale.estimators import Estimate
from tale.inference import Request, Sampling
from tale.solvers.budgeted import Budgeted
from tale.solvers.estimating import Estimating


@dataclass
class TaleEP(Estimating, Budgeted):
    """Ask for chain of thought under an estimated budget: two calls if the estimator is zero-shot, one if trained."""

    renamed_from = "estimated"

    estimator_model: ModelConfig | None = opt(
        "model for zero-shot estimation, on the same engine; default: the evaluated model", None
    )
    budget_multiplier: float = opt("factor on the estimate (A.8)", 1.0, gt=0, renamed_from="alpha")

    @property
    def title(self) -> str:
        """The default name, without label and adapter."""
        return f"CoT, {Path(self.estimator).name} budget" if self.estimator else "TALE-EP"

    def check(self, where: str, questions: Sequence[Question], sampling: Sampling) -> None:
        """Refuse two estimators, and a trained one whose training searches had another `budget_line`."""
        if self.estimator and self.estimator_model:
            raise UserError(f"{where}: estimator and estimator_model exclude each other; leave out one")
        self.check_budget_line(where)

    def budget_of(self, estimate: Estimate) -> int | None:
        """⌈α·β̂⌉."""
        return estimate.budget(self.budget_multiplier)

    def longest_requests(self, question: Question, sampling: Sampling) -> list[Request]:
        """The zero-shot estimator's request, if any, and the longest one under a budget."""
        return [*self.longest_estimate(question, sampling), *super().longest_requests(question, sampling)]
