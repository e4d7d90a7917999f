"""The base class of strategies: methods with one token budget B for all their calls for a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tale.config.fields import opt
from tale.data import prompts
from tale.data.prompts import Message
from tale.data.question import Question
from tale.errors import UserError
from tale.estimators import Estimate
from tale.inference import Request, Sampling
from tale.inference.scheduler import Solver
from tale.solvers.base import Solution
from tale.solvers.estimating import Estimating
from tale.solvers.spending import Spending

TOTAL, ESTIMATE = "total", "estimate"


@dataclass
class Strategy(Estimating, abstract=True):
    """Answer with several calls that together generate at most B output tokens.

    B is `total_budget`, or ⌈α·β̂⌉ of the question's estimate β̂ with α = `budget_multiplier`. An evaluation with
    `budgets` or `budget_multipliers` runs a strategy that sets neither once for each of them.
    """

    total_budget: int | None = opt(
        "B, most output tokens of all calls for a question; default: each of `budgets`", None, ge=1
    )
    budget_multiplier: float | None = opt(
        "B as a multiple of the question's estimated budget; default: each of `budget_multipliers`", None, gt=0
    )
    prompt_budget: str | None = opt(
        "budget that each chain's prompt states: a number of tokens, total (B), or estimate (TALE-EP); default: none, "
        "the vanilla prompt",
        None,
        pattern=(rf"[1-9]\d{{0,8}}|{TOTAL}|{ESTIMATE}", f"a positive number of tokens, {TOTAL} or {ESTIMATE}"),
    )
    temperature: float | None = opt(
        "temperature of the strategy's samples; default: sampling.temperature", None, allow=0, ge=0.01
    )

    samples = False  # whether the strategy needs different answers to the same prompt
    votes = True  # whether it compares answers, which are numbers, choices or expressions then
    label_of = ""  # the strategy's name in tables

    @property
    def described(self) -> str:
        """The strategy, with those of its options that tell it from others."""
        return self.label_of

    @property
    def title(self) -> str:
        """The strategy and its budget."""
        stated = f", {self.prompt_budget} budget stated" if self.prompt_budget else ""
        return f"{self.described}{stated}{self.limit_title}"

    @property
    def estimates(self) -> bool:
        """Whether the question's budget is estimated, for B or for the prompt."""
        return bool(self.budget_multiplier) or self.prompt_budget == ESTIMATE

    @property
    def limit_title(self) -> str:
        """B in the method's name."""
        if self.total_budget:
            return f", B = {self.total_budget}"
        return f", B = {self.budget_multiplier:g} × estimate" if self.budget_multiplier else ""

    @property
    def name(self) -> str:
        """The method's name in tables; a label is followed by B, and an adapter's by the strategy."""
        if self.label:
            return f"{self.label}{self.limit_title}"
        return f"{Path(self.adapter).parent.name}, {self.title}" if self.adapter else self.title

    def check(self, where: str, questions: Sequence[Question], sampling: Sampling) -> None:
        """Refuse a missing or second B, an estimator without use, and samples or votes that the run cannot have."""
        if bool(self.total_budget) == bool(self.budget_multiplier):
            raise UserError(f"{where}: kind {self.kind} needs either total_budget (or budgets) or budget_multiplier")
        if self.estimator and not self.estimates:
            raise UserError(f"{where}.estimator: only budget_multiplier and prompt_budget=estimate use it")
        if self.prompt_budget == ESTIMATE:
            self.check_budget_line(where)
        if self.samples and self._sampling(sampling).temperature == 0:
            raise UserError(
                f"{where}: kind {self.kind} compares samples, and at temperature 0 all are the same; set "
                f"{where}.temperature, such as 0.7"
            )
        if self.votes and any(question.metric != "accuracy" for question in questions):
            raise UserError(
                f"{where}: kind {self.kind} compares answers, and those of an open-ended task have no value"
            )

    def solve(self, question: Question, sampling: Sampling) -> Solver[Solution]:
        """Find B and the chains' prompt, then run the strategy until it ends or B is spent."""
        before = Estimate(None)
        if self.budget_multiplier:  # the tokens of this estimate count, but are not part of B, which it defines
            before = yield from self.estimate(question, sampling)
        total = self.total_budget or before.budget(self.budget_multiplier or 1.0) or sampling.max_tokens
        spending = Spending(question, sampling, total)
        stated: int | None = None
        if self.prompt_budget == TOTAL:
            stated = total
        elif self.prompt_budget == ESTIMATE:
            if not self.budget_multiplier:  # this one's call is one of the spending's
                found = yield from spending.within(self.estimate(question, sampling), ESTIMATE)
                before = replace(found, completion=None)
            stated = before.budget()
        elif self.prompt_budget:
            stated = int(self.prompt_budget)
        prompt = (Message("user", prompts.chain_of_thought(question, stated, self.budget_line)),)
        spending.sampling = self._sampling(sampling)  # the estimate's is the run's
        yield from self.reason(spending, prompt)
        return spending.solution(prompt, stated, before)

    def reason(self, spending: Spending, prompt: tuple[Message, ...]) -> Solver[None]:
        """Make the strategy's calls and set the answers in `spending`; `prompt` is that of each chain."""
        raise NotImplementedError

    def longest_requests(self, question: Question, sampling: Sampling) -> list[Request]:
        """The estimate's, if any, a chain's with the largest budget that its prompt can state, and those after it."""
        asked = self.longest_estimate(question, sampling) if self.estimates else []
        stated = sampling.max_tokens if self.prompt_budget else None
        limit = min(sampling.max_tokens, self.total_budget or sampling.max_tokens)
        prompt = prompts.chain_of_thought(question, stated, self.budget_line)
        chain = Request.user(prompt, replace(self._sampling(sampling), max_tokens=limit))
        return [*asked, chain, *self.longest_after(question, chain)]

    def longest_after(self, question: Question, chain: Request) -> list[Request]:
        """The longest requests whose prompts hold what calls generated, with room for these tokens (`with_room`)."""
        return []

    def with_room(self, chain: Request, messages: tuple[Message, ...], most: int | None = None) -> Request:
        """A request with these messages, and room for all of B, or for `most` tokens if they are fewer."""
        tokens = min((each for each in (self.total_budget, most) if each), default=chain.sampling.max_tokens)
        return replace(chain, messages=messages, sampling=replace(chain.sampling, max_tokens=tokens))

    def _sampling(self, sampling: Sampling) -> Sampling:
        return sampling if self.temperature is None else replace(sampling, temperature=self.temperature)
