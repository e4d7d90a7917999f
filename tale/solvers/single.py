"""One chain of thought within B, with or without budget forcing (s1, arXiv:2501.19393)."""

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


@dataclass
class Single(Strategy):
    """Answer in one chain that is cut at B.

    With `force_answer` the last `answer_reserve` tokens are kept for an answer: a chain that is cut there, or ended
    without one, is continued by the answer's opening. `wait`: how often a chain that ended is continued by "Wait".
    """

    label_of = "Single chain"
    votes = False

    force_answer: bool = opt("close a chain without an answer by the answer's opening and generate the rest", False)
    answer_reserve: int = answer_reserve_option()
    wait: int = opt('how often a chain that ended is continued by "Wait", while tokens are left', 0, ge=0)

    @property
    def described(self) -> str:
        """The strategy, with those of its options that tell it from others."""
        forced = " with budget forcing" if self.force_answer else ""
        return f"{self.label_of}{forced}" + (f", {self.wait} × Wait" if self.wait else "")

    def check(self, where: str, questions: Sequence[Question], sampling: Sampling) -> None:
        """Refuse a reserve that leaves nothing for the chain, and a forced answer of an open-ended question."""
        super().check(where, questions, sampling)
        if self.force_answer and any(question.metric != "accuracy" for question in questions):
            raise UserError(f"{where}.force_answer: an open-ended task has no form of an answer to force")
        if self.force_answer:
            check_reserve(where, self.answer_reserve, self.total_budget)

    def reason(self, spending: Spending, prompt: tuple[Message, ...]) -> Solver[None]:
        """The chain, its continuations, and the forced answer."""
        reserve = self.answer_reserve if self.force_answer else 0
        limit = max(1, spending.left - reserve)
        chain = yield from spending.call(prompt, limit=limit, continued=bool(reserve or self.wait))
        for _ in range(self.wait):
            if not chain or chain.completion.truncated or spending.left <= reserve:
                break
            messages = (*chain.continued, Message("assistant", "\nWait"))
            limit = spending.left - reserve
            chain = (yield from spending.call(messages, limit=limit, parent=chain.number, continued=True)) or chain
        if not chain:
            return
        if self.force_answer and spending.value(chain) is None:
            chain = (yield from forced_answer(spending, chain)) or chain
        spending.answer(chain)

    def longest_after(self, question: Question, chain: Request) -> list[Request]:
        """The chain's continuation, if there may be one."""
        calls = 1 + self.wait + self.force_answer
        messages, most = forced(chain.messages, question), calls * chain.sampling.max_tokens
        return [self.with_room(chain, messages, most)] if calls > 1 else []
