"""Chain of thought under a token budget, wherever it comes from."""

from __future__ import annotations

from dataclasses import dataclass

from tale.config.fields import budget_line
from tale.data import prompts
from tale.data.question import Question
from tale.estimators import Estimate
from tale.inference import Request, Sampling
from tale.inference.scheduler import Solver
from tale.solvers.base import Method, Solution, call


@dataclass
class Budgeted(Method, abstract=True):
    """Ask to think step by step in fewer tokens than a budget; where there is none, as vanilla CoT."""

    budget_line: str | None = budget_line()

    def solve(self, question: Question, sampling: Sampling) -> Solver[Solution]:
        """The estimate, and one call under it."""
        estimate = yield from self.estimate(question, sampling)
        return (yield from self.answer(question, sampling, estimate))

    def estimate(self, question: Question, sampling: Sampling) -> Solver[Estimate]:
        """Where the budget comes from."""
        raise NotImplementedError

    def answer(self, question: Question, sampling: Sampling, estimate: Estimate) -> Solver[Solution]:
        """One call under the estimate."""
        budget = self.budget_of(estimate)
        answer = yield from call(prompts.chain_of_thought(question, budget, self.budget_line), sampling)
        return Solution(answer, budget, estimate)

    def budget_of(self, estimate: Estimate) -> int | None:
        """The tokens that are asked for."""
        return estimate.budget()

    def longest(self, question: Question, sampling: Sampling) -> list[Request]:
        """A budget is at most as long as an answer may be."""
        prompt = prompts.budgeted(question, sampling.max_tokens, self.budget_line)
        return [Request.user(prompt, sampling)]
