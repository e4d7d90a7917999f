"""Reading answers that pass: the same whatever the chunks, and bytes that are not changed stay what they are."""

from __future__ import annotations

from typing import Any

import pytest

from tale.serve.reply import LONGEST_LINE, Answer, EventReader, dumped, extended, parsed

STREAM = (
    b': comment\r\ndata:{"choices": [{"delta": {"content": "\xc3\xa9"}}],  "n": 1.0}\r\n\r\n'
    b'event: x\ndata: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: not JSON\ndata: [DONE]\n\ndata: {"cut'
)


FIVE = {"usage": {"completion_tokens": 5}}
SAYS = {"choices": [{"delta": {"content": "7"}}]}


def changed(document: dict[str, Any]) -> dict[str, Any] | None:
    """The event with a finish reason, with another field."""
    ends = document["choices"][0].get("finish_reason")
    return {**document, "tale": 1} if ends else None


def test_chunks_do_not_matter_and_other_bytes_stay() -> None:
    """Cut at every place."""
    expected = STREAM.replace(b'"stop"}]}', b'"stop"}],"tale":1}')
    for cut in range(len(STREAM)):
        reader = EventReader(changed)
        assert reader.feed(STREAM[:cut]) + reader.feed(STREAM[cut:]) + reader.end() == expected


def test_a_line_without_end_passes_and_is_not_kept() -> None:
    reader = EventReader(changed)
    line = b"data: " + b"x" * LONGEST_LINE
    assert reader.feed(line) == line
    assert reader.rest == b""
    assert reader.feed(b'\ndata: {"choices":[{"finish_reason":"stop"}]}\n').endswith(b'"tale":1}\n')


def test_what_is_held_is_all_that_follows() -> None:
    def holding(document: dict[str, Any]) -> None:
        reader.hold = "finish_reason" in document["choices"][0]

    reader = EventReader(holding)
    passed = reader.feed(STREAM) + reader.end()
    assert passed + b"".join(reader.held) == STREAM
    assert b"".join(reader.held).startswith(b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}')


@pytest.mark.parametrize(
    ("documents", "used", "finish", "cut_empty"),
    [
        ([{"choices": [{"message": {"content": "7"}, "finish_reason": "stop"}], **FIVE}], 5, "stop", False),
        ([SAYS, SAYS, SAYS, {"choices": [{"finish_reason": "MAX_TOKENS"}]}], 3, "length", False),
        ([{"choices": [{"delta": {"content": ""}}]}, {"choices": [{"finish_reason": "length"}]}], None, "length", True),
        ([{"choices": [{"delta": {"reasoning": "hm"}, "finish_reason": "length"}]}], 1, "length", True),
        ([{"choices": [{"delta": {"tool_calls": [{}]}, "finish_reason": "length"}]}], 1, "length", False),
        ([{"choices": [{"message": {"content": " \n"}, "finish_reason": "length"}]}], 1, "length", True),
        ([{"choices": "odd"}, {"choices": [7, {"delta": 7}]}, {"usage": {"completion_tokens": -1}}], None, None, False),
    ],
)  # fmt: skip
def test_an_answer_is_read_from_its_objects(documents: list, used: int | None, finish: str, cut_empty: bool) -> None:
    answer = Answer()
    for document in documents:
        answer.note(document)
    assert (answer.used, answer.finish, answer.cut_empty) == (used, finish, cut_empty)


def test_usage_gets_other_calls_tokens_and_keeps_its_details() -> None:
    usage = {
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "total_tokens": 3,
        "queue_time": 0.5,
        "details": {"a": 1},
        "x": 9,
    }
    made = extended({"usage": usage, "id": "x"}, {"budget": 7}, 10, 20)
    more = {"prompt_tokens": 11, "completion_tokens": 22, "total_tokens": 33}
    assert made == {"usage": usage | more, "id": "x", "tale": {"budget": 7}}
    assert extended({"usage": None}, {}, 1, 1)["usage"] is None


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b"[" * 10**5, b"{"])
def test_what_is_no_object_is_none(content: bytes) -> None:
    assert parsed(content) is None


def test_half_characters_and_long_numbers_pass() -> None:
    content = b'{"a":"\\ud83d","b":12345678901234567890123,"c":1e+300}'
    assert dumped(parsed(content) or {}) == content
