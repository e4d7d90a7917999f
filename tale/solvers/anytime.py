"""Anytime reasoning (arXiv:2601.11038): one chain in steps of Δ tokens, after each of which an answer is forced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tale.config.fields import opt
from tale.data.prompts import Message
from tale.data.question import Question
from tale.errors import UserError
from tale.inference import Request, Sampling
from tale.inference.scheduler import Solver
from tale.solvers.forcing import answer_reserve_option, check_reserve, forced, forced_answer
from tale.solvers.spending import Spending
from tale.solvers.strategy import Strategy
from tale.solvers.voting import Votes


@dataclass
class Anytime(Strategy):
    """Continue a chain by `step` tokens at a time and force an answer after each, until it ends or B is spent.

    The answer is the latest one that was forced, or that of the chain when it ended. Q(b) is the share of the leading
    answer among those forced so far. The chain is left when (Q(b+Δ) − Q(b)) / Q(b) < ε and the leading answer is the
    latest one, with which Q does not fall (ours: else a fall, which means new doubt, would stop it as well).
    """

    label_of = "Anytime"

    step: int = opt("Δ, tokens of the chain between two forced answers", 100, ge=1)
    epsilon: float | None = opt(
        "ε, least relative gain of the leading answer's share from one forced answer to the next; null: no early stop",
        0.01,
        ge=0,
    )
    answer_reserve: int = answer_reserve_option()

    @property
    def described(self) -> str:
        """The strategy, with those of its options that tell it from others."""
        return f"{self.label_of}, Δ = {self.step}" + ("" if self.epsilon is None else f", ε = {self.epsilon:g}")

    def check(self, where: str, questions: Sequence[Question], sampling: Sampling) -> None:
        """Refuse a step or a reserve that B does not hold."""
        super().check(where, questions, sampling)
        check_reserve(where, self.answer_reserve, self.total_budget)
        if self.total_budget and self.step > self.total_budget:
            raise UserError(f"{where}.step={self.step}: is above B = {self.total_budget}; set a step within it")

    def reason(self, spending: Spending, prompt: tuple[Message, ...]) -> Solver[None]:
        """The chain's steps, each with its forced answer."""
        votes, messages, parent = Votes(spending.question), prompt, None
        while spending.left > self.answer_reserve:
            limit = min(self.step, spending.left - self.answer_reserve)
            chain = yield from spending.call(messages, limit=limit, parent=parent, continued=True)
            if chain is None:
                return
            ended = not chain.completion.truncated
            if ended and spending.value(chain) is not None:
                spending.answer(chain)
                return
            answer = yield from forced_answer(spending, chain, self.answer_reserve)
            if answer is None:
                return
            share = votes.share
            votes.add(answer, spending.value(answer))
            if votes.given[-1]:
                spending.answer(answer)
            if ended or self.settled(share, votes):
                return
            messages, parent = chain.continued, chain.number

    def settled(self, share: float, votes: Votes) -> bool:
        """Whether the leading answer's share has gained less than ε since it was `share`, by an answer like it."""
        if self.epsilon is None or not share or votes.given[-1] is not votes.leader:
            return False
        return votes.share - share < self.epsilon * share

    def longest_after(self, question: Question, chain: Request) -> list[Request]:
        """The whole chain, and a forced answer."""
        return [self.with_room(chain, messages) for messages in (chain.messages, forced(chain.messages, question))]
