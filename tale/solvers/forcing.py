"""A forced answer: the assistant's turn is continued by an answer's opening, and the model generates the rest."""

from __future__ import annotations

from typing import Any

from tale.config.fields import opt
from tale.data import prompts
from tale.data.prompts import Message
from tale.data.question import Question
from tale.errors import UserError
from tale.inference.scheduler import Solver
from tale.solvers.base import Call
from tale.solvers.spending import Spending


def answer_reserve_option() -> Any:
    """A field for the tokens of B that a chain leaves to its forced answer."""
    return opt("tokens of B kept for a forced answer", 16, ge=1)


def check_reserve(where: str, reserve: int, total_budget: int | None) -> None:
    """Refuse a reserve that leaves nothing of B to the chain.

    Raises:
        UserError: it is not below B.
    """
    if total_budget and reserve >= total_budget:
        raise UserError(f"{where}.answer_reserve={reserve}: leaves nothing of B = {total_budget} to the chain")


def forced(messages: tuple[Message, ...], question: Question) -> tuple[Message, ...]:
    """The conversation with the opening of an answer as the last part of the assistant's turn."""
    return (*messages, Message("assistant", prompts.answer_opening(question)))


def forced_answer(spending: Spending, chain: Call, limit: int | None = None) -> Solver[Call | None]:
    """Force an answer after a chain, in at most `limit` tokens; None if nothing is left."""
    messages = forced(chain.continued, spending.question)
    answer = yield from spending.call(messages, "forced answer", limit=limit, parent=chain.number, stop=("]]",))
    return answer
