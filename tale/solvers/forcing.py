"""A forced answer: the assistant's turn is continued by an answer's opening, and the model generates the rest."""

from __future__ import annotations

from tale.data import prompts
from tale.data.prompts import Message
from tale.data.question import Question
from tale.inference.scheduler import Solver
from tale.solvers.base import Call
from tale.solvers.spending import Spending


def forced(messages: tuple[Message, ...], question: Question) -> tuple[Message, ...]:
    """The conversation with the opening of an answer as the last part of the assistant's turn."""
    return (*messages, Message("assistant", prompts.answer_opening(question)))


def forced_answer(spending: Spending, chain: Call, limit: int | None = None) -> Solver[Call | None]:
    """Force an answer after a chain, in at most `limit` tokens; None if nothing is left."""
    messages = forced(chain.continued, spending.question)
    answer = yield from spending.call(messages, "forced answer", limit=limit, parent=chain.number, stop=("]]",))
    return answer
