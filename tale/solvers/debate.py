"""Multi-agent debate (arXiv:2305.14325): agents read each other's answers and answer again; the majority wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tale.config.fields import opt
from tale.data import strategy_prompts
from tale.data.prompts import Message
from tale.data.question import Question
from tale.errors import UserError
from tale.inference import Request, Sampling
from tale.inference.scheduler import Solver
from tale.solvers.base import Call
from tale.solvers.spending import Ask, Spending
from tale.solvers.strategy import Strategy
from tale.solvers.voting import Votes


@dataclass
class Debate(Strategy):
    """Let agents, samples of one model, answer at the same time in every round; the majority of the last round wins.

    A round gets an equal share of what is left for it and the later rounds, and each agent an equal share of that, so
    that the last round always has its part of B. Without an answer in a round, that of the round before it stays.
    """

    label_of = "Debate"
    samples = True

    agents: int = opt("agents, each with a conversation of its own", 3, ge=2)
    rounds: int = opt("rounds; from the second on, each agent sees the others' last answers", 2, ge=1)

    @property
    def described(self) -> str:
        """The strategy, with its agents and rounds."""
        return f"{self.label_of} of {self.agents} agents in {self.rounds} rounds"

    def check(self, where: str, questions: Sequence[Question], sampling: Sampling) -> None:
        """Refuse a B without a token for every call."""
        super().check(where, questions, sampling)
        if self.total_budget and self.total_budget < self.agents * self.rounds:
            raise UserError(
                f"{where}: B = {self.total_budget} leaves nothing to some of the {self.agents} agents × {self.rounds} "
                "rounds; raise B, or lower agents or rounds"
            )

    def reason(self, spending: Spending, prompt: tuple[Message, ...]) -> Solver[None]:
        """The rounds, one after the other."""
        histories = [prompt] * self.agents
        before: list[Call] = []
        for number in range(self.rounds):
            limit = spending.left // (self.agents * (self.rounds - number))
            asks = [
                Ask(history, f"round {number + 1}", limit, agent, before[agent].number if before else None)
                for agent, history in enumerate(histories)
            ]
            before = yield from spending.several(asks)
            if not before:
                return
            votes = Votes(spending.question)
            for answer in before:
                votes.add(answer, spending.value(answer))
            if votes.leader:
                spending.answer(votes.leader.first)
            texts = [answer.text for answer in before]
            histories = [
                (*history, Message("assistant", texts[agent]), self._others(spending.question, texts, agent, prompt))
                for agent, history in enumerate(histories)
            ]

    def longest_after(self, question: Question, chain: Request) -> list[Request]:
        """The last round's request, whose prompt has its own answers and the others'."""
        messages = chain.messages
        for _ in range(self.rounds - 1):
            other = self._others(question, [""] * self.agents, 0, chain.messages)
            messages = (*messages, Message("assistant", "…"), other)
        return [self.with_room(chain, messages)]

    def _others(self, question: Question, texts: Sequence[str], agent: int, prompt: tuple[Message, ...]) -> Message:
        others = [text for i, text in enumerate(texts) if i != agent]
        return strategy_prompts.debate(question, others, prompt[-1].content)
