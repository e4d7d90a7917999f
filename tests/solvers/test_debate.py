"""Debate: each round's share of the budget, what an agent reads, and the majority."""

from __future__ import annotations

import pytest

from tale.data import prompts
from tale.data.prompts import Message
from tale.errors import UserError
from tale.evaluation.replies import check_methods, graded_reply
from tale.inference import Completion, Sampling
from tale.solvers.debate import Debate
from tests.fake_engine import questions, right, said, wrong
from tests.token_engine import TokenEngine

(QUESTION,) = questions(1)
SAMPLING = Sampling(max_tokens=512, temperature=0.7)


def debated(first: list[Completion], last: list[Completion], total_budget: int):
    """The reply of a debate with these answers in its two rounds, and its calls round by round."""
    engine = TokenEngine(lambda request: (first if len(request.messages) == 1 else last)[request.sample])
    method = Debate(total_budget=total_budget)
    solution, rounds = engine.run(method.solve(QUESTION, SAMPLING))
    return graded_reply(method.name, QUESTION, solution), rounds


def test_the_last_round_has_its_share_and_its_majority_wins():
    reply, rounds = debated([right(8), right(9), wrong(10)], [right(11), wrong(11), wrong(9)], 60)
    limits = [[request.sampling.max_tokens for request, _ in requests] for requests in rounds]
    # 60 / 6 calls; the 33 tokens left after 27 are for three
    assert limits == [[10, 10, 10], [11, 11, 11]]
    assert (reply.value, reply.tokens) == ("8", 58)
    assert [(answer.tokens, answer.correct) for answer in reply.answers or ()] == [(27, True), (58, False)]
    assert [(call.role, call.parent) for call in reply.calls or ()][2:4] == [("round 1", None), ("round 2", 0)]


def test_an_agent_reads_its_own_answer_and_those_of_the_others():
    _, rounds = debated([said("one", 1), said("two", 1), said("three", 1)], [right(5)] * 3, 60)
    prompt = prompts.vanilla(QUESTION)
    asked, own, others = rounds[1][1][0].messages
    assert (asked, own) == (Message("user", prompt), Message("assistant", "two"))
    assert [text in others.content for text in ("one", "two", "three")] == [True, False, True]
    assert others.content.endswith(prompt)


def test_a_round_without_answers_keeps_those_before():
    cut = said("and so", 11, "length")
    reply, _ = debated([said("no idea", 3), right(4), wrong(4)], [cut] * 3, 60)
    assert reply.value == "7"


def test_a_debate_with_fewer_tokens_than_calls_is_refused():
    with pytest.raises(UserError, match=r"^methods\[0\]: B = 5 leaves nothing to some of the 3 agents × 2 rounds"):
        check_methods([Debate(total_budget=5)], [QUESTION], SAMPLING)
