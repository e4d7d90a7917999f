"""The openai engine against a server that replies what each test has written."""

from __future__ import annotations

import base64
import copy
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from transformers import PreTrainedTokenizerFast

from tale.config.sections import EndpointConfig, EngineConfig, ModelConfig
from tale.data.chat import Chat
from tale.errors import UserError
from tale.inference.build import check_requests, find_model
from tale.inference.journal import JournaledEngine
from tale.inference.openai.engine import EndpointEngine, RemoteModel
from tale.inference.requests import Completion, Message, Request, Sampling
from tale.inference.scheduler import Solver, solve
from tests.fake_endpoint import FakeEndpoint, Reply, answer, refusal, used
from tests.fake_engine import ask, generate

pytest.importorskip("openai", reason="pip install -e '.[openai]' brings the client")

KEY = "sk-secret-0123456789"
GREEDY = Sampling(max_tokens=12)
FINE = answer("7", usage=used(5, 2))
ON = ". All answers so far are in the journal: the same command resumes"
Script = Callable[[dict, int], Reply]


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def chat(tiny_tokenizer: PreTrainedTokenizerFast) -> Chat:
    return Chat(tiny_tokenizer)


@contextmanager
def served(
    script: Script | Reply | list[Reply], concurrency: int = 1, chat: Chat | None = None, **config: object
) -> Iterator[tuple[EndpointEngine, FakeEndpoint]]:
    """An engine at a server: one reply for every call, a list of them in order, or a function of the call."""
    if isinstance(script, Reply):
        script = [script] * 100
    if isinstance(script, list):
        replies = script
        script = lambda _, number: replies[number]  # noqa: E731
    tokenizer = "tiny" if chat else None
    with FakeEndpoint(script) as endpoint:
        settings = EndpointConfig(
            **{"base_url": endpoint.url, "max_retries": 0, "tokenizer": tokenizer} | config, max_concurrency=concurrency
        )
        yield EndpointEngine("some-model", settings, chat), endpoint


def asked(engine: EndpointEngine, *requests: Request, sampling: Sampling = GREEDY) -> list[Completion]:
    done = dict(generate(engine, requests, sampling))
    return [done[i] for i in range(len(requests))]


def error_of(engine: EndpointEngine, *requests: Request, sampling: Sampling = GREEDY) -> str:
    with pytest.raises(UserError) as caught:
        asked(engine, *requests, sampling=sampling)
    return str(caught.value)


def drawn(request: Request) -> int:
    return replace(request, sampling=RANDOM).draw_seed % 2**31


def prompt_of(call: dict) -> str:
    return call["messages"][0]["content"]


# --- What is sent ----------------------------------------------------------------------------------------------------


def test_a_call_is_a_user_turn_with_its_limit_and_own_seed() -> None:
    """Seeds by hand: the first 7 bytes of SHA-256("1024\\n{sample}\\n2 + 5?"), below 2**31."""
    requests = [ask("2 + 5?"), ask("2 + 5?", 1)]
    with served(FINE) as (engine, endpoint):
        assert asked(engine, *requests, sampling=Sampling(12, 0.5)) == [Completion("7", 2, "stop", 5)] * 2
    assert endpoint.calls[0] == {
        "model": "some-model",
        "messages": [{"role": "user", "content": "2 + 5?"}],
        "temperature": 0.5,
        "max_tokens": 12,
        "seed": 669964462,
    }
    assert endpoint.calls[1] == endpoint.calls[0] | {"seed": 1728550759}
    assert endpoint.paths == ["/v1/chat/completions"] * 2


def test_a_server_that_asks_for_max_completion_tokens_gets_it() -> None:
    """OpenAI's newer models refuse max_tokens, in these words; elsewhere max_completion_tokens may be ignored."""

    def script(call: dict, _: int) -> Reply:
        if "max_tokens" in call:
            return refusal(400, "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.")
        return FINE

    with served(script) as (engine, endpoint):
        assert asked(engine, *map(ask, "ab")) == asked(engine, *map(ask, "cd"))
    assert [{"max_tokens", "max_completion_tokens"} & call.keys() for call in endpoint.calls] == [
        {"max_tokens"},
        *[{"max_completion_tokens"}] * 4,
    ]


def test_the_key_goes_into_the_header_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", KEY)
    echo = refusal(401, f"Incorrect API key provided: {KEY}")
    with served([FINE, echo, Reply(f"<p>{KEY}</p>")], api_key_env="MY_KEY") as (engine, endpoint):
        journaled = JournaledEngine(engine, tmp_path / "journal.jsonl", {"name": "some-model"})
        asked(journaled, ask("a"))
        errors = [error_of(journaled, ask("b"))]
        errors += [str(completion.error) for completion in asked(journaled, ask("c"))]
    assert [headers["authorization"] for headers in endpoint.headers] == [f"Bearer {KEY}"] * 3
    assert errors[0] == (
        f"{endpoint.url}: status 401 (Incorrect API key provided: <key>); check the key in the environment variable "
        f"MY_KEY{ON}"
    )
    journal = (tmp_path / "journal.jsonl").read_text()
    assert KEY not in "".join([*errors, repr(engine), repr(vars(engine)), journal, caplog.text])


def test_a_local_server_needs_no_key() -> None:
    with served(FINE) as (engine, endpoint):
        asked(engine, ask("a"))
    assert endpoint.headers[0]["authorization"] == "Bearer none"


def test_password_and_query_reach_the_server_but_are_not_shown() -> None:
    with FakeEndpoint(lambda *_: refusal(400, "no")) as endpoint:
        url = endpoint.url.replace("//", "//me:pass@") + "?version=1"
        engine = EndpointEngine("m", EndpointConfig(url, max_concurrency=1))
        assert error_of(engine, ask("a")) == f"{endpoint.url}: status 400 (no){ON}"
    assert endpoint.paths == ["/v1/chat/completions?version=1"]
    assert endpoint.headers[0]["authorization"] == "Basic bWU6cGFzcw=="  # base64 of me:pass
    assert engine.tokenizer == f"usage of m at {endpoint.url}"


def test_environment_variables_in_a_url_are_sent_and_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_PASSWORD", "p@ss/wörd 1")
    monkeypatch.setenv("API_KEY", "Zx9&=secret")
    echo = refusal(400, "p@ss/wörd 1 and Zx9&=secret and Zx9%26%3Dsecret")
    with FakeEndpoint(lambda *_: echo) as endpoint:
        url = endpoint.url.replace("//", "//me:$MY_PASSWORD@") + "?api-version=1&api-key=$API_KEY"
        engine = EndpointEngine("m", EndpointConfig(url, max_concurrency=1))
        error = error_of(engine, ask("a"))
    assert error == f"{endpoint.url}: status 400 (<key> and <key> and <key>){ON}"
    assert parse_qs(endpoint.paths[0].partition("?")[2]) == {"api-version": ["1"], "api-key": ["Zx9&=secret"]}
    credentials = base64.b64decode(endpoint.headers[0]["authorization"].removeprefix("Basic ")).decode()
    assert credentials == "me:p@ss/wörd 1"
    assert RemoteModel("m", url, None, "chat").identity == {"name": "m", "endpoint": endpoint.url}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"base_url": "http://host/v1?key=$NOT_THERE"},
            "engine.endpoint.base_url: the environment variable NOT_THERE is not set",
        ),
        ({"api_key_env": "NOT_THERE"}, "engine.endpoint.api_key_env: the environment variable NOT_THERE is not set"),
    ],
)
def test_a_variable_that_is_not_set_is_named_before_the_run(config: dict, message: str) -> None:
    engine = EngineConfig(kind="openai", endpoint=EndpointConfig(**config))
    with pytest.raises(UserError, match=f"^{message}"):
        find_model(ModelConfig("m"), engine)


@pytest.mark.parametrize(
    ("config", "key", "message"),
    [
        (
            {"base_url": None},
            None,
            "engine.endpoint.api_key_env: OpenAI needs a key in the environment variable OPENAI_API_KEY",
        ),
        ({"base_url": None, "api_key_env": "MINE"}, None, ".*environment variable MINE"),
        ({"base_url": None}, "sk-€", "engine.endpoint.api_key_env: the value of OPENAI_API_KEY is not a key"),
        ({"base_url": "localhost:8000/v1"}, None, "engine.endpoint.base_url: must begin with http:// or https://"),
        ({"base_url": "http://host:port/v1"}, None, "engine.endpoint.base_url"),
        ({"base_url": "http:///v1"}, None, "engine.endpoint.base_url"),
        ({"use_n": True}, None, r"engine.endpoint.use_n: .*; set engine\.endpoint\.tokenizer"),
    ],
)
def test_what_cannot_work_is_refused_before_any_call(
    config: dict, key: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UserError, match=f"^{message}"):
        EndpointEngine("m", EndpointConfig(**{"base_url": "http://localhost/v1"} | config, max_concurrency=1))


def test_without_the_client_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[openai\]'"):
        EndpointEngine("m", EndpointConfig("http://localhost/v1", max_concurrency=1))


def test_openai_is_asked_at_its_address_with_the_newer_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever OPENAI_BASE_URL says: a run's records name the endpoint."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere/v1")
    engine = EndpointEngine("m", EndpointConfig(max_concurrency=1))
    assert (str(engine._client().base_url), engine.limit) == ("https://api.openai.com/v1/", "max_completion_tokens")


# --- Many calls ------------------------------------------------------------------------------------------------------


def test_as_many_calls_are_in_flight_as_allowed_and_no_more() -> None:
    """Each call waits until four are there, or gives up."""
    gate = threading.Barrier(4)

    def script(call: dict, _: int) -> Reply:
        gate.wait(5)
        return answer(prompt_of(call), usage=used(1, 1))

    requests = [ask(str(i)) for i in range(12)]
    with served(script, concurrency=4) as (engine, endpoint):
        assert [c.text for c in asked(engine, *requests)] == [str(i) for i in range(12)]
    assert endpoint.most_under_way == 4
    assert len(endpoint.calls) == 12


def test_an_answer_is_given_as_soon_as_it_is_there() -> None:
    first_is_out = threading.Event()

    def script(call: dict, _: int) -> Reply:
        if prompt_of(call) == "slow":
            assert first_is_out.wait(5)
        return answer(prompt_of(call), usage=used(1, 1))

    with served(script, concurrency=2) as (engine, _):
        answers = generate(engine, [ask("slow"), ask("fast")], GREEDY)
        assert next(answers) == (1, Completion("fast", 1, "stop", 1))
        first_is_out.set()
        assert list(answers) == [(0, Completion("slow", 1, "stop", 1))]


def test_no_requests_give_nothing() -> None:
    with served(FINE) as (engine, endpoint):
        assert list(generate(engine, [], GREEDY)) == []
    assert endpoint.calls == []


# --- When it ends early ----------------------------------------------------------------------------------------------


def still_running(before: set[threading.Thread]) -> list[str]:
    """Names of the threads that the client has left behind; the server's own have a name with its handler's."""
    return [t.name for t in set(threading.enumerate()) - before if "process_request" not in t.name]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_consumer_that_stops_leaves_no_thread_and_no_call() -> None:
    def script(_: dict, number: int) -> Reply:
        return FINE if number == 0 else Reply(hang=True)

    with served(script, concurrency=3) as (engine, endpoint):
        before = set(threading.enumerate())
        answers = generate(engine, [ask(str(i)) for i in range(9)], GREEDY)
        next(answers)
        wait_until(lambda: len(endpoint.calls) == 4)
        assert still_running(before) != []
        answers.close()
        assert still_running(before) == []
        wait_until(lambda: endpoint.hung_up == 3)
        assert len(endpoint.calls) == 4


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell that starts the tests in the background has them ignore interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_the_calls_at_once() -> None:
    with served(Reply(hang=True), concurrency=2) as (engine, endpoint):
        before = set(threading.enumerate())
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            asked(engine, ask("a"), ask("b"), ask("c"))
        timer.join()
        assert time.monotonic() - started < 20  # not the minutes of a call's time-out
        assert still_running(before) == []
        wait_until(lambda: endpoint.hung_up == 2)


def test_calls_in_flight_are_journalled_before_the_error(tmp_path: Path) -> None:
    """Paid for, and journalled: the second run asks for the refused prompt and the one never sent, and no others."""
    failed = threading.Event()

    def script(call: dict, _: int) -> Reply:
        if prompt_of(call) == "1" and not failed.is_set():
            failed.set()
            return refusal(403, "no")
        failed.wait(5)
        return replace(FINE, seconds=0.2)

    requests = [ask(str(i)) for i in range(4)]
    with served(script, concurrency=3) as (engine, endpoint):
        journaled = JournaledEngine(engine, tmp_path / "journal.jsonl", {})
        with pytest.raises(UserError, match="status 403"):
            list(generate(journaled, requests, GREEDY))
        assert sorted(map(prompt_of, endpoint.calls)) == ["0", "1", "2"]
        assert len(asked(journaled, *requests)) == 4
    assert sorted(map(prompt_of, endpoint.calls[3:])) == ["1", "3"]


# --- Failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failures",
    [
        [refusal(429, "slow down", **{"Retry-After": "0.01"})],
        [refusal(500, "oops")] * 2,
        [refusal(503, "starting")],
        [Reply(hang=True)],
        [replace(FINE, cut=True)],
        [refusal(429, "slow down"), replace(FINE, cut=True), refusal(500, "oops")],
    ],
    ids=["429", "500 twice", "503", "too slow", "half a body", "one after another"],
)
def test_a_passing_failure_is_asked_again(failures: list[Reply]) -> None:
    with served([*failures, FINE], max_retries=3, timeout=1) as (engine, endpoint):
        assert asked(engine, ask("a")) == [Completion("7", 2, "stop", 5)]
    assert endpoint.calls == [endpoint.calls[0]] * (len(failures) + 1)


@pytest.mark.parametrize(
    ("reply", "retries", "message"),
    [
        (refusal(500, "oops"), 3, "status 500 (oops), after 3 retries"),
        (
            refusal(429, "slow down"),
            2,
            "status 429 (slow down), after 2 retries; lower engine.endpoint.max_concurrency",
        ),
        (
            Reply(hang=True),
            1,
            "no answer within 0.2 s, after 1 retries; lower engine.endpoint.max_concurrency or raise "
            "engine.endpoint.timeout",
        ),
        (
            Reply('{"choices": ', cut=True),
            1,
            "the connection failed (peer closed connection without sending complete message body (received 6 bytes, "
            "expected 12)), after 1 retries; check engine.endpoint.base_url and the server",
        ),
    ],
    ids=["500", "429", "too slow", "half a body"],
)
def test_a_lasting_failure_ends_after_the_retries(reply: Reply, retries: int, message: str) -> None:
    with served(reply, max_retries=retries, timeout=0.2 if reply.hang else 5) as (engine, endpoint):
        assert error_of(engine, ask("a")) == f"{endpoint.url}: {message}{ON}"
    assert len(endpoint.calls) == retries + 1


def test_a_pause_longer_than_the_client_waits_is_no_retry() -> None:
    with served(refusal(429, "tomorrow", **{"retry-after-ms": "86400000"}), max_retries=2) as (engine, endpoint):
        assert "status 429 (tomorrow), after 0 retries" in error_of(engine, ask("a"))
    assert len(endpoint.calls) == 1


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (refusal(400, "too long"), "status 400 (too long)"),
        (refusal(401, "who?"), "status 401 (who?); check the key in the environment variable OPENAI_API_KEY"),
        (
            refusal(404, "what?"),
            "status 404 (what?); check model.name_or_path, and engine.endpoint.base_url, which ends in /v1",
        ),
        (Reply({"detail": "odd"}, 422), "status 422 ({'detail': 'odd'})"),
        (Reply("<h1>Gone</h1>" + 500 * "-", 410), f"status 410 (<h1>Gone</h1>{187 * '-'}…)"),
    ],
)
def test_a_refused_call_is_not_made_again(reply: Reply, message: str) -> None:
    with served(reply, max_retries=5) as (engine, endpoint):
        assert error_of(engine, ask("a")) == f"{endpoint.url}: {message}{ON}"
    assert len(endpoint.calls) == 1


def test_no_server_is_a_failed_connection() -> None:
    with FakeEndpoint(lambda *_: FINE) as endpoint:
        url = endpoint.url
    error = error_of(EndpointEngine("m", EndpointConfig(url, max_retries=0, max_concurrency=1)), ask("a"))
    assert error.startswith(f"{url}: the connection failed (All connection attempts failed), after 0 retries;")


@pytest.mark.parametrize(
    "body",
    [
        "<html>\n  Welcome</html>",
        '{"choices": [{"index": 0, "mess',
        "[]",
        "null",
        '{"object": "list"}',
        '{"choices": []}',
        '{"choices": null}',
        '{"choices": [{"index": 0, "finish_reason": "stop"}]}',
        '{"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": ["7"]}}]}',
        '{"choices": [{"index": 1, "finish_reason": "stop", "message": {"content": "7"}}]}',
    ],
)
@pytest.mark.parametrize("kind", ["application/json", "text/html"])
def test_a_body_that_is_no_completion_is_shown(body: str, kind: str) -> None:
    with served(Reply(body, headers={"Content-Type": kind})) as (engine, endpoint):
        said = " ".join(body.split())
        expected = f"{endpoint.url}: the reply is not a chat completion ({said}), after 0 retries{ON}"
        assert error_of(engine, ask("a")) == expected


@pytest.mark.parametrize("finish", ["tool_calls", 7, "abort"])
def test_an_answer_with_an_unknown_end_is_none(finish: object) -> None:
    def script(call: dict, _: int) -> Reply:
        return answer("7", finish=finish if prompt_of(call) == "b" else "stop", usage=used(5, 2))

    with served(script) as (engine, _):
        first, second = asked(engine, ask("a"), ask("b"))
        assert (first.finish, second) == ("stop", Completion.failed(f"unknown finish_reason {finish!r}"))


@pytest.mark.parametrize(
    ("said", "tokens", "finish"),
    [
        *((word, 2, "stop") for word in ("eos", "eos_token", "end_turn", "stop_sequence", "STOP", "stop-sequence")),
        *((word, 2, "length") for word in ("max_tokens", "MAX_TOKENS", "max_length", "model_length")),
        ("SAFETY", 2, "content_filter"),
        (None, 11, "stop"),
        (None, 12, "length"),
    ],
)
def test_servers_have_their_own_words_for_an_answers_end(said: str | None, tokens: int, finish: str) -> None:
    """Where one names none the limit of 12 tokens tells, with a tokenizer or without."""
    with served(answer("7", finish=said, usage=used(5, tokens))) as (engine, _):
        assert asked(engine, ask("a")) == [Completion("7", tokens, finish, 5)]


def test_where_no_end_is_named_counted_tokens_tell(chat: Chat) -> None:
    """Ids are bytes: 11 of them and the end, or 12."""
    for text, finish in (("It is seven", "stop"), ("It is  seven", "length")):
        with served(answer(text, finish=None), chat=chat) as (engine, _):
            assert asked(engine, ask("ab")) == [Completion(text, 12, finish, 21)]


# --- Tokens ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("finish", ["stop", "length", "content_filter"])
def test_counts_are_the_endpoints_own(finish: str) -> None:
    with served(answer("7", finish=finish, usage=used(31, 19, cached=16, reasoning=8))) as (engine, endpoint):
        assert asked(engine, ask("a")) == [Completion("7", 19, finish, 31, cached_tokens=16, reasoning_tokens=8)]
    assert engine.tokenizer == f"usage of some-model at {endpoint.url}"


def test_unreported_details_are_0_and_no_text_is_an_empty_one() -> None:
    usage = used(31, 19) | {"prompt_tokens_details": None, "completion_tokens_details": {"audio_tokens": 0}}
    with served(answer(None, finish="content_filter", usage=usage)) as (engine, _):
        assert asked(engine, ask("a")) == [Completion("", 19, "content_filter", 31)]


@pytest.mark.parametrize("usage", [None, {"total_tokens": 5}])
def test_an_answer_without_usage_needs_a_tokenizer(usage: dict | None) -> None:
    with served(answer("7", usage=usage)) as (engine, _):
        assert f": the reply has no usage; set engine.endpoint.tokenizer{ON}" in error_of(engine, ask("a"))


@pytest.mark.parametrize("usage", [None, used(999, 999, cached=16, reasoning=8)])
def test_a_tokenizer_counts_prompt_answer_and_end(usage: dict | None, chat: Chat) -> None:
    """Ids are bytes. Prompt: 2 of it, 16 of "user\\n", "\\n" and "assistant\\n", 3 special. Answer: 7, and its end."""
    cached, reasoning = (16, 8) if usage else (0, 0)
    for finish, tokens in (("stop", 8), ("length", 7), ("content_filter", 7)):
        with served(answer("It is 7", finish=finish, usage=usage), chat=chat) as (engine, _):
            expected = Completion("It is 7", tokens + reasoning, finish, 21, cached, reasoning)
            assert asked(engine, ask("ab")) == [expected]
    assert engine.tokenizer == "tiny"


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_a_tokenizer_counts_reasoning_beside_the_answer(name: str, chat: Chat) -> None:
    """vLLM and llama.cpp put it beside the answer and report no figure."""
    with served(answer("7", **{name: "2 + 5"}, usage=used(21, 7)), chat=chat) as (engine, _):
        assert asked(engine, ask("ab")) == [Completion("7", 7, "stop", 21, reasoning_tokens=5)]


def test_half_a_character_is_replaced_in_the_journal_too(tmp_path: Path) -> None:
    with served(answer("\ud83d\ude00 \ud83d 7 \ude00", usage=used(5, 2))) as (engine, endpoint):
        for _ in range(2):
            journaled = JournaledEngine(engine, tmp_path / "journal.jsonl", {})
            assert [c.text for c in asked(journaled, ask("a"))] == ["\U0001f600 \ufffd 7 \ufffd"]
            journaled.close()
    assert len(endpoint.calls) == 1


def test_content_in_parts_is_its_text_and_thinking_is_reasoning(chat: Chat) -> None:
    """Ids are bytes: 7 of reasoning, 3 of text, and the end."""
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "2"}, {"type": "text", "text": " + 5 ="}]}]
    parts += [{"type": "text", "text": "[7"}, {"type": "text", "text": "]"}]
    with served(answer(parts), chat=chat) as (engine, _):
        assert asked(engine, ask("ab")) == [Completion("[7]", 11, "stop", 21, reasoning_tokens=7)]


@pytest.mark.parametrize("text", ["", None])
def test_an_answer_in_its_reasoning_alone_is_all_reasoning(
    text: str | None, chat: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    reply = answer(text, reasoning="So 7", usage=used(21, 9))
    with served(reply) as (engine, endpoint), served(reply, chat=chat) as (counting, _):
        assert asked(engine, ask("ab")) == [Completion("", 9, "stop", 21, reasoning_tokens=9)]
        assert asked(counting, ask("ab")) == [Completion("", 5, "stop", 21, reasoning_tokens=5)]
    assert capsys.readouterr().out.startswith(f"{endpoint.url}: 1 of 1 answers consist of reasoning only")


def test_prompts_beyond_the_servers_context_are_not_sent(chat: Chat) -> None:
    """21 ids of the prompt and 12 of the answer, or one more."""
    with served(FINE, chat=chat, max_model_len=33) as (engine, endpoint):
        fits, not_so = asked(engine, ask("ab"), ask("abc"))
    assert (fits.finish, not_so.error) == (
        "stop",
        "too long: prompt and answer may need 34 tokens, the model has 33",
    )
    assert len(endpoint.calls) == 1


def test_different_refusals_are_no_fault_of_the_call() -> None:
    with served([refusal(400, "no"), refusal(413, "large")]) as (engine, _):
        assert [c.error for c in asked(engine, *map(ask, "ab"))] == ["status 400 (no)", "status 413 (large)"]


def test_only_a_few_questions_are_asked_where_each_is_refused() -> None:
    with served(lambda _, number: refusal(400, f"request {number}: no")) as (engine, endpoint):
        error = error_of(engine, *(ask(str(i)) for i in range(20)))
    assert error == f"{endpoint.url}: status 400 (request 4: no), the same for every question (5){ON}"
    assert len(endpoint.calls) == 5


def test_an_answer_in_flight_decides_who_was_at_fault() -> None:
    """Five are refused while the first still thinks; when it answers the others are asked."""
    refused = threading.Barrier(2)

    def script(call: dict, _: int) -> Reply:
        if prompt_of(call) == "0":
            refused.wait(5)
            return FINE
        if prompt_of(call) == "5":
            refused.wait(5)
        return refusal(400, "no") if prompt_of(call) in "12345" else FINE

    with served(script, concurrency=2) as (engine, _):
        finishes = [c.finish for c in asked(engine, *(ask(str(i)) for i in range(8)))]
    assert finishes == ["stop", *["error"] * 5, "stop", "stop"]


def test_what_a_server_forbids_is_left_out_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    def script(call: dict, _: int) -> Reply:
        return refusal(422, "Extra inputs are not permitted: seed") if "seed" in call else FINE

    with served(script) as (engine, endpoint):
        assert len(asked(engine, *map(ask, "abc"))) == 3
    assert ["seed" in call for call in endpoint.calls] == [True, False, False, False]
    assert capsys.readouterr().out == f"{endpoint.url}: refuses seed; left out, the server's default applies\n"


def test_prompt_and_key_follow_no_redirect_to_another_server() -> None:
    with FakeEndpoint(lambda *_: FINE) as other:
        elsewhere = Reply("", 307, {"Location": f"{other.url}/chat/completions"})
        with served(elsewhere) as (engine, endpoint):
            error = error_of(engine, ask("a"))
    assert error.startswith(
        f"{endpoint.url}: it redirects to {other.url}/chat/completions, to which no prompts are sent;"
    )
    assert other.calls == []


# --- Grouped ---------------------------------------------------------------------------------------------------------

SAMPLES = [ask("ab", 2), ask("c", 0), ask("ab", 5), ask("ab", 0)]
RANDOM = Sampling(12, 1.0)


def test_samples_share_a_call_whose_prompt_is_paid_once(chat: Chat) -> None:
    def script(call: dict, _: int) -> Reply:
        if prompt_of(call) == "c":
            return answer("one", usage=used(20, 4))
        reply = answer("1", "22", "333", usage=used(21, 9, cached=16))
        reply.body["choices"].reverse()
        return reply

    with served(script, chat=chat, use_n=True) as (engine, endpoint):
        assert asked(engine, *SAMPLES, sampling=RANDOM) == [
            Completion("1", 2, "stop", 21, cached_tokens=16),
            Completion("one", 4, "stop", 20),
            Completion("22", 3, "stop", 0),
            Completion("333", 4, "stop", 0),
        ]
    assert [(prompt_of(call), call.get("n")) for call in endpoint.calls] == [("ab", 3), ("c", None)]
    assert [call["seed"] for call in endpoint.calls] == [drawn(r) for r in SAMPLES[:2]]


def test_each_seed_of_a_prompt_has_a_call_of_its_own(chat: Chat) -> None:
    seeded = [ask("ab", sampling=replace(RANDOM, seed=seed)) for seed in (3, 4)]
    with served(FINE, chat=chat, use_n=True) as (engine, endpoint):
        asked(engine, *seeded, sampling=None)
    assert [call["seed"] for call in endpoint.calls] == [r.draw_seed % 2**31 for r in seeded]


def test_ungrouped_samples_are_calls_of_their_own(chat: Chat) -> None:
    with served(FINE, chat=chat) as (engine, endpoint):
        asked(engine, *SAMPLES, sampling=RANDOM)
    assert [call["seed"] for call in endpoint.calls] == [drawn(r) for r in SAMPLES]
    assert len({call["seed"] for call in endpoint.calls}) == 4
    assert not any("n" in call for call in endpoint.calls)


def test_fewer_choices_than_asked_for_are_refused(chat: Chat) -> None:
    with served(answer("1", "2"), chat=chat, use_n=True) as (engine, _):
        error = error_of(engine, ask("ab"), ask("ab", 1), ask("ab", 2), sampling=RANDOM)
    assert f": 2 of 3 choices came; set engine.endpoint.use_n=false{ON}" in error


def test_reasoning_tokens_of_all_choices_together_are_refused(chat: Chat) -> None:
    with served(answer("1", "2", usage=used(21, 40, reasoning=36)), chat=chat, use_n=True) as (engine, _):
        error = error_of(engine, ask("ab"), ask("ab", 1), sampling=RANDOM)
    assert f": reasoning tokens are for all choices together; set engine.endpoint.use_n=false{ON}" in error


# --- The model -------------------------------------------------------------------------------------------------------


def test_a_remote_model_is_its_name_and_where_it_is() -> None:
    here = RemoteModel("m", "https://me:pass@host:8000/v1/?key=1#x", None, "chat")
    assert here.identity == {"name": "m", "endpoint": "https://host:8000/v1"}
    assert RemoteModel("m", None, None, "chat").identity == {"name": "m", "endpoint": "https://api.openai.com/v1"}
    assert (here.merge, here.chat()) == (None, None)


def test_a_remote_models_tokenizer_is_read_by_name(tiny_model_folder: Path, chat: Chat, tmp_path: Path) -> None:
    read = RemoteModel("m", None, str(tiny_model_folder), "chat").chat()
    assert read.prompt_ids("2 + 5?") == chat.prompt_ids("2 + 5?")
    assert read.target_ids("7") == chat.target_ids("7")
    with pytest.raises(UserError, match=r"^engine\.endpoint\.tokenizer: no tokenizer can be read"):
        RemoteModel("m", None, str(tmp_path), "chat").chat()


# --- What a request says --------------------------------------------------------------------------------------------


def test_turns_limits_and_stop_strings_go_into_the_call() -> None:
    turns = (Message("system", "Be brief."), Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    requests = [Request(turns, Sampling(9, 0.5), stop=("\n", "##")), ask("d", sampling=Sampling(3))]
    with served(saying("##"), concurrency=1) as (engine, endpoint):
        made = dict(generate(engine, requests))
    assert [made[i].stop_string for i in range(2)] == ["##", None]
    first, second = endpoint.calls
    assert first["messages"] == [{"role": turn.role, "content": turn.content} for turn in turns]
    assert (first["stop"], first["max_tokens"], first["temperature"]) == (["\n", "##"], 9, 0.5)
    assert (second.get("stop"), second["max_tokens"], second.get("logprobs")) == (None, 3, None)


def saying(reason: object, name: str = "stop_reason") -> Reply:
    """A reply that says what ended it."""
    body = copy.deepcopy(FINE.body)
    body["choices"][0][name] = reason
    return replace(FINE, body=body)


@pytest.mark.parametrize("name", ["stop_reason", "matched_stop"])
def test_a_reply_says_whether_a_stop_string_ended_it(name: str) -> None:
    """vLLM gives null for its own end token, SGLang the token's id."""
    for reason, stop_string in ((";", ";"), (None, None), (151645, None)):
        with served(saying(reason, name)) as (engine, _):
            ((_, completion),) = generate(engine, [replace(ask("a"), stop=(";",))])
        assert completion.stop_string == stop_string


def test_a_server_that_hides_what_ended_a_reply_is_refused() -> None:
    with served(FINE) as (engine, _), pytest.raises(UserError, match="does not say whether a stop string ended it"):
        list(generate(engine, [replace(ask("a"), stop=(";",))]))


def test_log_probabilities_come_with_the_reply() -> None:
    body = copy.deepcopy(FINE.body)
    body["choices"][0]["logprobs"] = {"content": [{"token": "7", "logprob": -0.5}, {"token": "", "logprob": -0.25}]}
    with served(replace(FINE, body=body)) as (engine, endpoint):
        ((_, completion),) = generate(engine, [replace(ask("a"), logprobs=True)])
    assert completion.logprobs == (-0.5, -0.25)
    assert endpoint.calls[0]["logprobs"] is True


@pytest.mark.parametrize("given", [[-0.5], "none", 7, {"tokens": [7]}, {"content": [{"token": "7"}]}, {"content": 7}])
def test_odd_log_probabilities_matter_only_where_wanted(given: object) -> None:
    body = copy.deepcopy(FINE.body)
    body["choices"][0]["logprobs"] = given
    with served(replace(FINE, body=body)) as (engine, _):
        assert asked(engine, ask("a")) == [Completion("7", 2, "stop", 5)]
        with pytest.raises(UserError, match="the reply lacks log-probabilities"):
            list(generate(engine, [replace(ask("a"), logprobs=True)]))


def test_a_server_without_wanted_log_probabilities_is_refused() -> None:
    with served(FINE) as (engine, _), pytest.raises(UserError, match="the reply lacks log-probabilities"):
        list(generate(engine, [replace(ask("a"), logprobs=True)]))


def test_an_open_turn_is_refused_before_any_call() -> None:
    turns = (Message("user", "a"), Message("assistant", "b"))
    with served(FINE) as (engine, endpoint), pytest.raises(UserError, match="cannot continue an assistant turn"):
        list(generate(engine, [ask("a"), Request(turns, GREEDY)]))
    assert endpoint.calls == []


def test_an_open_turn_is_refused_before_the_model_is_known() -> None:
    turns = (Message("user", "a"), Message("assistant", "b"))
    requests = [ask("a"), Request(turns, GREEDY)]
    continuing = EndpointConfig(base_url="http://127.0.0.1:1/v1", continue_final_message=True)
    for config in (EngineConfig(), EngineConfig("vllm"), EngineConfig("openai", endpoint=continuing)):
        check_requests(config, requests)
    check_requests(EngineConfig("openai"), requests[:1])
    with pytest.raises(
        UserError, match=r"cannot continue an assistant turn; set engine\.endpoint\.continue_final_message"
    ):
        check_requests(EngineConfig("openai"), requests)


def test_a_server_that_can_continues_the_joined_parts() -> None:
    parts = (Message("user", "a"), Message("assistant", "b", (98,)), Message("assistant", " c"))
    with served(FINE, continue_final_message=True) as (engine, endpoint):
        assert asked(engine, ask("a"), Request(parts, GREEDY)) == [Completion("7", 2, "stop", 5)] * 2
    plain, opened = endpoint.calls
    assert opened["messages"] == [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b c"}]
    assert (opened["continue_final_message"], opened["add_generation_prompt"]) == (True, False)
    assert not {"continue_final_message", "add_generation_prompt"} & plain.keys()


def test_a_slow_call_holds_up_no_other() -> None:
    """Solvers of one to four calls; the first one's answer comes once all the others' calls have been made."""
    plans = [1 + i % 4 for i in range(60)]
    others = threading.Event()

    def script(call: dict, _: int) -> Reply:
        if len(endpoint.calls) == sum(plans):
            others.set()
        if prompt_of(call) == "0 0":
            assert others.wait(20)
        return answer("7", usage=used(1, 1))

    def solver(i: int) -> Solver[int]:
        for step in range(plans[i]):
            yield [ask(f"{i} {step}")]
        return i

    with served(script, concurrency=8) as (engine, endpoint):
        assert list(solve(map(solver, range(60)), engine, max_in_flight=16)) == [*range(60)]
    assert len(endpoint.calls) == sum(plans)
