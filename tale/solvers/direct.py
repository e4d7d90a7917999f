"""The answer without any reasoning (Table 3's "directly answering")."""

from __future__ import annotations

from dataclasses import dataclass

from tale.data import prompts
from tale.data.question import Question
from tale.inference import Request, Sampling
from tale.inference.scheduler import Solver
from tale.solvers.base import Method, Solution, call


@dataclass
class Direct(Method):
    """Ask for the answer without reasoning."""

    title = "Directly answering"

    def solve(self, question: Question, sampling: Sampling) -> Solver[Solution]:
        """One call."""
        return Solution((yield from call(prompts.direct(question), sampling)))

    def longest_requests(self, question: Question, sampling: Sampling) -> list[Request]:
        """The only request."""
        return [Request.user(prompts.direct(question), sampling)]
