"""The base class of methods with chain of thought under a token budget."""

from __future__ import annotations

from dataclasses import dataclass

from tale.config.fields import budget_line_option
from tale.data import prompts
from tale.data.question import Question
from tale.estimators import Estimate
from tale.inference import Request, Sampling
from tale.inference.scheduler import Solver
from tale.solvers.base import Method, Solution, call


@dataclass
class Budgeted(Method, abstract=True):
    """Ask for chain of thought in fewer tokens than a budget; without a budget, for vanilla CoT."""

    budget_line: str | None = budget_line_option()

    def solve(self, question: Question, sampling: Sampling) -> Solver[Solution]:
        """Estimate the budget, then answer in one call."""
        estimate = yield from self.estimate(question, sampling)
        return (yield from self.answer(question, sampling, estimate))

    def estimate(self, question: Question, sampling: Sampling) -> Solver[Estimate]:
        """Estimate the question's budget."""
        raise NotImplementedError

    def answer(self, question: Question, sampling: Sampling, estimate: Estimate) -> Solver[Solution]:
        """Answer in one call under the estimated budget."""
        budget = self.budget_of(estimate)
        answer = yield from call(prompts.chain_of_thought(question, budget, self.budget_line), sampling)
        return Solution(answer, budget, estimate)

    def budget_of(self, estimate: Estimate) -> int | None:
        """The budget in the prompt, in tokens."""
        return estimate.budget()

    def longest_requests(self, question: Question, sampling: Sampling) -> list[Request]:
        """The prompt with the largest budget, which is `max_tokens`."""
        prompt = prompts.budgeted(question, sampling.max_tokens, self.budget_line)
        return [Request.user(prompt, sampling)]
