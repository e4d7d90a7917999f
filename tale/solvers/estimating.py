"""The base class of methods with an estimated budget: by a trained estimator, or zero-shot by a model (§5.2, Fig 5)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tale.config.fields import budget_line_option, opt
from tale.data import prompts
from tale.data.question import Question
from tale.estimators import Estimate
from tale.estimators.saved import EstimatorCard, TrainedEstimator, load_estimator
from tale.estimators.zero_shot import zero_shot
from tale.inference import Request, Sampling
from tale.inference.scheduler import Solver
from tale.solvers.base import Method


@dataclass
class Estimating(Method, abstract=True):
    """Estimate each question's budget."""

    estimator: str | None = opt(
        "folder of a trained estimator (scripts/estimate.py); default: zero-shot estimation by the evaluated model",
        None,
    )
    budget_line: str | None = budget_line_option()

    @property
    def reads(self) -> list[str]:
        """Paths of the method's input files and folders."""
        return [*super().reads, *([self.estimator] if self.estimator else [])]

    def check_budget_line(self, where: str) -> None:
        """Refuse a trained estimator whose searches had another `budget_line` than this method's prompts.

        Raises:
            UserError: they differ, or the estimator is missing or damaged.
        """
        if self.estimator:
            self._loaded[1].check_budget_line(self.budget_line, f"{where}.estimator: {self.estimator}")

    def estimate(self, question: Question, sampling: Sampling) -> Solver[Estimate]:
        """β̂ of the question; a zero-shot one has the estimator's call."""
        if self.estimator:
            return self._loaded[0].estimate([question])[0]
        return (yield from zero_shot(question, sampling))

    def longest_estimate(self, question: Question, sampling: Sampling) -> list[Request]:
        """The zero-shot estimator's request, if any."""
        return [] if self.estimator else [Request.user(prompts.estimate(question), sampling)]

    @cached_property
    def _loaded(self) -> tuple[TrainedEstimator, EstimatorCard]:
        return load_estimator(Path(str(self.estimator)))
