"""TALE-EP (§5.2): chain of thought under an estimated budget, a model's own (zero-shot, Fig 5) or a trained one's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tale.config.fields import opt
from tale.config.sections import ModelConfig
from tale.data import prompts
from tale.data.question import Question
from tale.errors import UserError
from tale.estimators import Estimate
from tale.estimators.saved import Trained, load_estimator
from tale.estimators.zero_shot import zero_shot
from tale.inference import Request, Sampling
from tale.inference.scheduler import Solver
from tale.solvers.budgeted import Budgeted


@dataclass
class TaleEP(Budgeted):
    """Two calls where a model estimates, one where a trained estimator does."""

    was = "estimated"

    estimator: str | None = opt(
        "folder of an estimator that scripts/estimate.py trained; default: zero-shot by a model", None
    )
    estimator_model: ModelConfig | None = opt(
        "zero-shot: another model than the evaluated one, on the same engine", None
    )
    budget_multiplier: float = opt("factor on the estimate (A.8)", 1.0, above=0, was="alpha")

    @property
    def title(self) -> str:
        """Its name where it has no label and no adapter."""
        return f"CoT, {Path(self.estimator).name} budget" if self.estimator else "TALE-EP"

    @property
    def reads(self) -> list[str]:
        """Paths of what it works with."""
        return [*super().reads, *([self.estimator] if self.estimator else [])]

    def check(self, where: str, questions: Sequence[Question], sampling: Sampling) -> None:
        """Refuse two estimators, and a trained one that learnt budgets asked for in other words."""
        if not self.estimator:
            return
        if self.estimator_model:
            raise UserError(
                f"{where}: estimator or estimator_model, a trained one or a model that is asked; leave out one"
            )
        learnt = load_estimator(Path(self.estimator))[1].budget_line
        if learnt != self.budget_line:
            raise UserError(
                f"{where}.estimator: {self.estimator} learnt from searches with budget_line={learnt}, this method has "
                f"{self.budget_line}"
            )

    def estimate(self, question: Question, sampling: Sampling) -> Solver[Estimate]:
        """What the estimator says, whose own tokens count."""
        if self.estimator:
            return self._trained.estimate([question])[0]
        return (yield from zero_shot(question, sampling))

    def budget_of(self, estimate: Estimate) -> int | None:
        """⌈α·β̂⌉."""
        return estimate.budget(self.budget_multiplier)

    def longest(self, question: Question, sampling: Sampling) -> list[Request]:
        """The estimator's, where a model is asked, and the longest under a budget."""
        asked = [] if self.estimator else [Request.user(prompts.estimate(question), sampling)]
        return [*asked, *super().longest(question, sampling)]

    @cached_property
    def _trained(self) -> Trained:
        return load_estimator(Path(str(self.estimator)))[0]
