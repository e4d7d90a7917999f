"""Chain of thought without a budget (Table 1)."""

from __future__ import annotations

from dataclasses import dataclass

from tale.data import prompts
from tale.data.question import Question
from tale.inference import Request, Sampling
from tale.inference.scheduler import Solver
from tale.solvers.base import Method, Solution, call


@dataclass
class Vanilla(Method):
    """Ask for step-by-step reasoning."""

    title = "Vanilla CoT"

    def solve(self, question: Question, sampling: Sampling) -> Solver[Solution]:
        """One call."""
        return Solution((yield from call(prompts.vanilla(question), sampling)))

    def longest_requests(self, question: Question, sampling: Sampling) -> list[Request]:
        """The only request."""
        return [Request.user(prompts.vanilla(question), sampling)]
