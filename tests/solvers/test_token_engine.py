"""The tests' engine of tokens: cut, stopped and continued answers are parts of the script's whole answer."""

from __future__ import annotations

from tale.data.prompts import Message
from tale.inference import Completion, Request, Sampling
from tale.solvers.base import Call
from tests.token_engine import END, TokenEngine

PROMPT = (Message("user", "How many?"),)


def request(messages: tuple[Message, ...], limit: int, *stop: str) -> Request:
    return Request(messages, Sampling(max_tokens=limit), stop=stop)


def test_an_answer_cut_at_any_place_and_continued_is_the_whole():
    engine = TokenEngine(lambda asked: "3 and 4 make [[7]]" if asked.messages == PROMPT else "no other")
    for place in range(1, 6):
        first = request(PROMPT, place)
        begun = engine.answer(first)
        assert (begun.tokens, begun.finish) == (place, "length")
        rest = engine.answer(request(Call(first, begun).continued, 9))
        assert begun.text + rest.text == "3 and 4 make [[7]]"
        assert (*begun.ids, *rest.ids) == (*engine.ids("3 and 4 make [[7]]"), END)
        assert (rest.tokens, rest.finish, rest.prompt_tokens) == (6 - place, "stop", 2 + place)


def test_a_stop_string_ends_an_answer_with_its_last_token():
    engine = TokenEngine(lambda asked: "one two]]. three")
    stopped = engine.answer(request(PROMPT, 9, "]]"))
    assert stopped == Completion("one two", 2, "stop", 2, ids=engine.ids("one two]]."), stop_string="]]")
    assert engine.answer(request(PROMPT, 1, "]]")).finish == "length"


def test_a_turn_that_ends_in_text_has_its_own_script():
    engine = TokenEngine(lambda asked: {"user": "I think", "assistant": "7]]"}[asked.messages[-1].role])
    first = request(PROMPT, 1)
    opened = (*Call(first, engine.answer(first)).continued, Message("assistant", " Answer: [["))
    assert engine.answer(request(opened, 9)).text == "7]]"
    assert engine.requests[-1].messages == opened


def test_what_no_script_begins_with_is_followed_by_all_of_it():
    engine = TokenEngine(lambda asked: "a b")
    assert engine.answer(request((*PROMPT, Message("assistant", "b", engine.ids("b"))), 9)).text == "a b"
