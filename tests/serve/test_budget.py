"""The decision table of the proxy, and the request that it makes of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tale.data import prompts
from tale.data.question import Question
from tale.inference import Completion, Sampling
from tale.serve.budget import Call, Decision, RefusedError, decide, with_budget
from tale.serve.control import in_control, question_key
from tale.serve.recipe import ServeRecipe
from tale.solvers.tale_ep import TaleEP
from tests.serve_proxy import recipe_of

LINE = "\nLet's think step by step and use less than {} tokens:\n"
USER = {"role": "user", "content": "Why?"}
OPEN = {"role": "assistant", "content": "Be"}
TOOLS = {"tools": [{"type": "function", "function": {"name": "f"}}]}
JSON = {"response_format": {"type": "json_schema", "json_schema": {}}}
NO_TEXT = "the last message is not a user's text"
GEMINI = {"extra_body": {"google": {"thinking_config": {"thinking_budget": 70}}}}


def recipe(*words: str) -> ServeRecipe:
    return recipe_of("http://localhost:1/v1", Path("unused"), *words)


def call(*messages: dict, **fields: Any) -> Call:
    found = Call.read(json.dumps({"model": "m", "messages": messages or [USER], **fields}).encode())
    assert found
    return found


def asked(text: str) -> Call:
    return call({"role": "user", "content": text})


def made(given: Call, budget: int, *words: str) -> dict[str, Any]:
    return json.loads(with_budget(given, budget, recipe(*words)).content)


@pytest.mark.parametrize(
    ("given", "header", "words", "expected"),
    [
        (call(), None, [], ("budget", None, None, None)),
        (call(), "70", [], ("stated", None, 70, "client")),
        (call(**TOOLS), "70", [], ("stated", None, 70, "client")),
        (call(reasoning={"max_tokens": 70}), None, [], ("stated", None, 70, "client")),
        (call(thinking_token_budget=70), None, [], ("stated", None, 70, "client")),
        (call(thinking_budget_tokens=70), None, [], ("stated", None, 70, "client")),
        (call(custom_params={"thinking_budget": 70}), None, [], ("stated", None, 70, "client")),
        (call(**GEMINI), None, [], ("stated", None, 70, "client")),
        (call(thinking_token_budget=70, reasoning_effort="low"), "60", [], ("stated", None, 60, "client")),
        (call(reasoning_effort="low"), None, [], ("budget", None, 64, "effort")),
        (call(reasoning={"effort": "high"}), None, ["max_budget=300"], ("budget", None, 300, "effort")),
        (call(reasoning_effort="medium"), None, [], ("budget", None, None, None)),
        (call(reasoning_effort="medium"), None, ["efforts.medium=99"], ("budget", None, 99, "effort")),
        (call(reasoning_effort="unheard of"), None, [], ("budget", None, None, None)),
        (call(reasoning_effort="max"), None, [], ("unchanged", "effort without a budget", None, None)),
        (call(**TOOLS), None, [], ("unchanged", "tools", None, None)),
        (call(**TOOLS), None, ["policy.tools=budget"], ("budget", None, None, None)),
        (call(functions=[{"name": "f"}]), None, [], ("unchanged", "tools", None, None)),
        (call(**JSON), None, [], ("unchanged", "response_format", None, None)),
        (call(response_format={"type": "text"}), None, [], ("budget", None, None, None)),
        (call(n=3), None, [], ("unchanged", "n", None, None)),
        (call(n=3), None, ["policy.n=budget"], ("budget", None, None, None)),
        (call(USER, OPEN), None, [], ("unchanged", NO_TEXT, None, None)),
        (asked(" \n"), None, [], ("unchanged", NO_TEXT, None, None)),
        (asked("Why?" + LINE.format(9)), None, [], ("unchanged", "a budget in the turn", None, None)),
        (asked("What is 'use less than 9 tokens'?"), None, [], ("budget", None, None, None)),
        (call(), None, ["mode=pass"], ("unchanged", "mode=pass", None, None)),
        (None, None, [], ("unchanged", "not a chat completions request", None, None)),
    ],
)  # fmt: skip
def test_the_decision_table(given: Call | None, header: str | None, words: list[str], expected: tuple) -> None:
    found = decide(given, header, recipe(*words))
    assert (found.arm, found.reason, found.budget, found.source) == expected


@pytest.mark.parametrize("budget", [0, -1, 10**9, True, 1.5, "70", [70]])
def test_a_budget_that_is_none_is_refused_by_its_field(budget: object) -> None:
    for fields in ({"reasoning": {"max_tokens": budget}}, {"thinking_token_budget": budget}):
        with pytest.raises(RefusedError, match=r"(reasoning.max_tokens|thinking_token_budget): .* from 1 to 8192") as e:
            decide(call(**fields), None, recipe())
        assert e.value.status == 400
    if budget != "70":
        with pytest.raises(RefusedError, match="x-token-budget: a budget must be an integer from 1 to 8192"):
            decide(call(), str(budget), recipe())


def test_a_budget_without_a_place_or_beside_another_is_refused() -> None:
    with pytest.raises(RefusedError, match="x-token-budget: the last message is not a user's text"):
        decide(call(USER, OPEN), "70", recipe())
    with pytest.raises(RefusedError, match="x-token-budget: the last message states a budget, too"):
        decide(asked("Why?" + LINE.format(9)), "70", recipe())


QUESTIONS = [
    Question("n", "Tom has 3 pens and buys 4. How many?", "7"),
    Question("c", "Which is prime?", "B", "choice", options=("4", "7", "9")),
    Question("z", "三加四等于几？", "7", language="zh"),
    Question("y", "哪个是质数？", "B", "choice", "zh", ("4", "7")),
]


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.id)
@pytest.mark.parametrize("line", [None, "In {budget} tokens:", "In {budget} tokens:\n{question}\n{format}\n"])
def test_a_vanilla_prompt_becomes_the_prompts_of_tale_ep(question: Question, line: str | None) -> None:
    """Those of the method itself: the estimator's, and then the one under the budget that the estimator replies."""
    solving = TaleEP(kind="tale_ep", budget_line=line).solve(question, Sampling(64))
    (estimate,) = next(solving)
    (answer,) = solving.send([Completion("Budget: [[86]]", 5, "stop", 60)])
    given = call({"role": "user", "content": prompts.vanilla(question)})
    sent = json.loads(with_budget(given, 86, recipe() if line is None else _with_line(line)).content)
    assert sent["messages"] == [{"role": "user", "content": answer.prompt}]
    assert prompts.estimate(given.question) == estimate.prompt


def _with_line(line: str) -> ServeRecipe:
    changed = recipe()
    changed.budget_line = line
    return changed


def test_only_the_last_user_turn_and_the_limit_change() -> None:
    history = [{"role": "system", "content": "S"}, USER, {"role": "assistant", "content": "A"}, {**USER, "name": "x"}]
    given = call(*history, temperature=0.30000000000000004, unknown={"a": [1, None]}, seed=2**70)
    sent = made(given, 40)
    *before, last = history
    assert sent == {
        **given.body,
        "messages": [*before, {**last, "content": f"Why?{LINE.format(40)}"}],
        "max_tokens": 144,
    }


def test_images_stay_and_the_last_text_gets_the_line() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:x"}}
    parts = [{"type": "text", "text": "Look:"}, image, {"type": "text", "text": "Why?", "x": 1}, image]
    (message,) = made(call({"role": "user", "content": parts}), 40)["messages"]
    changed = {"type": "text", "text": f"Why?{LINE.format(40)}", "x": 1}
    assert message == {"role": "user", "content": [parts[0], image, changed, image]}


@pytest.mark.parametrize(
    ("fields", "words", "limits", "asked"),
    [
        ({}, [], {"max_tokens": 144}, 40),  # 40 × 2 + 64
        ({}, ["upstream_kind=openai"], {"max_completion_tokens": 144}, 40),
        ({}, ["slack=1.5", "room=0"], {"max_tokens": 60}, 40),
        ({}, ["slack=null"], {}, 40),
        ({"max_tokens": 1000}, [], {"max_tokens": 144}, 40),
        ({"max_completion_tokens": 1000}, [], {"max_completion_tokens": 144}, 40),
        ({"max_tokens": 100}, [], {"max_tokens": 100}, 40),
        ({"max_tokens": 30}, [], {"max_tokens": 30}, 30),
        ({"max_tokens": 30}, ["slack=null"], {"max_tokens": 30}, 40),
        ({"max_tokens": 900, "max_completion_tokens": 30}, [], {"max_tokens": 900, "max_completion_tokens": 30}, 30),
        ({"max_tokens": -1}, [], {"max_tokens": -1}, 40),
        ({"max_tokens": "many"}, [], {"max_tokens": "many"}, 40),
    ],
)
def test_the_limit_is_budget_times_slack_and_room(fields: dict, words: list, limits: dict, asked: int) -> None:
    """Never above the client's own; what is no limit is left to the upstream."""
    sent = made(call(**fields), 40, *words)
    assert {name: sent[name] for name in ("max_tokens", "max_completion_tokens") if name in sent} == limits
    assert sent["messages"][0]["content"] == f"Why?{LINE.format(asked)}"


@pytest.mark.parametrize(
    ("kind", "fields", "native"),
    [
        ("vllm", {}, {"thinking_token_budget": 40}),
        ("llama_cpp", {}, {"thinking_budget_tokens": 40}),
        ("sglang", {"custom_params": {"a": 1}}, {"custom_params": {"a": 1, "thinking_budget": 40}}),
        ("openrouter", {}, {"reasoning": {"max_tokens": 40}}),
        ("openrouter", {"reasoning": {"effort": "low"}}, {"reasoning": {"effort": "low"}}),
        ("gemini", {}, {"extra_body": {"google": {"thinking_config": {"thinking_budget": 40}}}}),
        ("vllm", {"thinking_token_budget": 50}, {"thinking_token_budget": 50}),
        ("openai", {}, {}),
    ],
)
def test_a_native_field_is_a_second_layer(kind: str, fields: dict, native: dict) -> None:
    plain = {"model", "messages", "max_completion_tokens"}
    sent = made(call(**fields), 40, f"upstream_kind={kind}", "native_budget=true")
    assert {name: value for name, value in sent.items() if name not in plain} == native
    assert {name for name in made(call(), 40, f"upstream_kind={kind}")} == plain


def test_the_control_group_is_a_share_of_questions() -> None:
    """A larger share has the smaller one's questions; model and seed draw another. The key by hand: SHA-256."""
    assert question_key(0, "m", "Why?") == "37b9b22bb638c270"
    keys = [question_key(0, "m", f"Question {i}") for i in range(20_000)]
    small, large = ({key for key in keys if in_control(key, share)} for share in (0.05, 0.2))
    assert small < large
    assert len(small) / len(keys) == pytest.approx(0.05, abs=0.005)
    assert len(large) / len(keys) == pytest.approx(0.2, abs=0.01)
    others = {question_key(1, "m", f"Question {i}") for i in range(20_000)}
    assert len({key for key in others if in_control(key, 0.05)}) != len(small)


def test_a_question_drawn_for_control_is_decided_so() -> None:
    assert decide(call(), None, recipe("control_share=0.999999")) == Decision("control", question_key(0, "m", "Why?"))
    stated = decide(call(), "70", recipe("control_share=0.999999"))
    assert stated.arm == "stated"
