"""Requests through the proxy to a scripted server, over HTTP: what reaches the server, and what the client gets."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tale.estimators.base import Constant
from tale.estimators.saved import EstimatorCard, save_estimator
from tests.fake_endpoint import FakeEndpoint, Reply, answer, refusal, used
from tests.serve_proxy import proxy

pytest.importorskip("fastapi", reason="pip install -e '.[serve]' brings what serving needs")

ASK = {"model": "m", "messages": [{"role": "user", "content": "2 + 5?"}]}
ASKED = "2 + 5?\nLet's think step by step and use less than 40 tokens:\n"
ANSWER = answer("It is 7", usage=used(20, 9))
KEY = "sk-secret-0123456789"


def script(call: dict, _: int) -> Reply:
    """An estimate of 40 tokens, and the answer."""
    estimates = "estimate the minimum" in call["messages"][0]["content"]
    return answer("Budget: [[40]]", usage=used(50, 5)) if estimates else ANSWER


CLIENT = httpx2.Client(verify=False, timeout=20)  # to plain HTTP alone


def post(url: str, body: Any = None, **headers: str) -> httpx2.Response:
    content = body if isinstance(body, bytes) else json.dumps(ASK if body is None else body).encode()
    return CLIENT.post(f"{url}/v1/chat/completions", content=content, headers=headers)


def events(*documents: dict | str, gate: Callable[[], object] = lambda: None) -> Reply:
    """A stream; `gate` is called before each event but the first."""

    def chunks() -> Iterator[bytes]:
        for i, document in enumerate(documents):
            if i:
                gate()
            yield f"data: {document if isinstance(document, str) else json.dumps(document)}\n\n".encode()

    return Reply(chunks=chunks, headers={"Content-Type": "text/event-stream; charset=utf-8"})


def delta(text: str | None = None, finish: str | None = None, **more: Any) -> dict:
    return {"id": "x", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}], **more}


USAGE = {"id": "x", "choices": [], "usage": used(20, 9)}
STREAM = (delta("It "), delta("is 7"), delta(finish="stop"), USAGE, "[DONE]")


@pytest.fixture
def estimator(tmp_path: Path) -> str:
    """A trained estimator of 40 tokens."""
    save_estimator(Constant(40), EstimatorCard("t", [], []), tmp_path / "constant")
    return f"estimator={tmp_path / 'constant'}"


# --- Under a budget --------------------------------------------------------------------------------------------------


def test_an_estimated_budget_is_stated_enforced_and_billed(tmp_path: Path) -> None:
    """The second time the estimate is in the cache, and costs nothing."""
    with FakeEndpoint(script) as server, proxy(server.url, tmp_path) as tale:
        first, second = post(tale.url), post(tale.url)
        rows = tale.rows(2)
    assert [call["messages"][0]["content"] for call in server.calls[1:]] == [ASKED] * 2
    assert [call["max_tokens"] for call in server.calls] == [128, 144, 144]
    assert first.json()["usage"] == used(70, 14)
    assert second.json()["usage"] == used(20, 9)
    assert first.json()["tale"] == {
        **{"budget": 40, "source": "zero_shot", "limit": 144, "used": 9, "limit_fired": False, "retried": False},
        **{"retried_tokens": 0, "estimator_prompt_tokens": 50, "estimator_tokens": 5},
    }
    assert {name: value for name, value in first.headers.items() if name.startswith("x-tale")} == {
        **{"x-tale-arm": "budget", "x-tale-source": "zero_shot", "x-tale-budget": "40", "x-tale-limit": "144"},
        **{"x-tale-estimator-tokens": "5", "x-tale-used": "9", "x-tale-limit-fired": "false"},
        "x-tale-retried": "false",
    }
    assert [(row.source, row.asked, row.used, row.spent, row.finish) for row in rows] == [
        ("zero_shot", 40, 9, 14, "stop"),
        ("cache", 40, 9, 9, "stop"),
    ]


def test_a_trained_estimator_needs_no_call(tmp_path: Path, estimator: str) -> None:
    with FakeEndpoint(script) as server, proxy(server.url, tmp_path, estimator) as tale:
        assert post(tale.url).json()["tale"]["source"] == "trained"
    assert [call["messages"][0]["content"] for call in server.calls] == [ASKED]


def test_a_stream_ends_with_its_budget_and_estimators_tokens(tmp_path: Path) -> None:
    def streaming(call: dict, number: int) -> Reply:
        return events(*STREAM) if call.get("stream") else script(call, number)

    with FakeEndpoint(streaming) as server, proxy(server.url, tmp_path) as tale:
        reply = post(tale.url, ASK | {"stream": True})
        (row,) = tale.rows(1)
    *documents, end = [line.removeprefix("data: ") for line in reply.text.split("\n") if line]
    found = [json.loads(document) for document in documents]
    assert end == "[DONE]"
    assert found[:2] == list(STREAM[:2])
    assert {name: found[2][name] for name in STREAM[2]} == STREAM[2]
    assert found[2]["tale"]["budget"] == 40
    assert found[3]["usage"] == used(70, 14)
    assert found[3]["tale"]["used"] == 9
    assert (reply.headers["x-tale-budget"], row.used, row.counted, row.stream) == ("40", 9, "usage", True)


def test_without_usage_a_streams_tokens_are_its_events(tmp_path: Path, estimator: str) -> None:
    with (
        FakeEndpoint(lambda *_: events(*STREAM[:3], "[DONE]")) as server,
        proxy(server.url, tmp_path, estimator) as tale,
    ):
        reply = post(tale.url, ASK | {"stream": True})
        (row,) = tale.rows(1)
    assert (row.used, row.counted, row.finish) == (2, "events", "stop")
    assert '"used":2' in reply.text


EMPTY = answer("", finish="length", usage=used(20, 144))


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_cut_before_its_first_word_is_asked_again(tmp_path: Path, estimator: str, stream: bool) -> None:
    """Without a budget, once; both calls are billed and said."""

    def cutting(call: dict, number: int) -> Reply:
        if call["messages"][0]["content"] == ASKED:
            reasoning = {"id": "x", "choices": [{"index": 0, "delta": {"reasoning": "hm"}, "finish_reason": None}]}
            cut = delta("", "length", usage=used(20, 144))
            return events(reasoning, cut, "[DONE]") if stream else EMPTY
        return events(*STREAM) if stream else ANSWER

    with FakeEndpoint(cutting) as server, proxy(server.url, tmp_path, estimator) as tale:
        reply = post(tale.url, ASK | {"stream": stream})
        (row,) = tale.rows(1)
    assert server.calls == [server.calls[0], ASK | {"stream": stream}]
    assert (row.retried, row.limit_fired, row.used, row.finish) == (True, True, 153, "stop")
    if stream:
        assert reply.text.count("[DONE]") == 1
        assert reply.text.index("hm") < reply.text.index("is 7")
        assert '"completion_tokens":153' in reply.text
        assert '"length"' not in reply.text
    else:
        assert reply.json()["usage"] == used(40, 153)
        assert reply.json()["choices"] == ANSWER.body["choices"]
        assert (reply.json()["tale"]["retried"], reply.json()["tale"]["retried_tokens"]) == (True, 144)


def test_an_empty_answer_stays_if_the_limit_was_the_clients(tmp_path: Path, estimator: str) -> None:
    with FakeEndpoint(lambda *_: EMPTY) as server, proxy(server.url, tmp_path, estimator) as tale:
        reply = post(tale.url, ASK | {"max_tokens": 30})
    assert (len(server.calls), reply.json()["tale"]["retried"]) == (1, False)


@pytest.mark.parametrize("reply", [answer("No idea"), refusal(500, "oops"), Reply("{"), Reply(status=302)])
def test_without_an_estimate_the_request_passes_unchanged(tmp_path: Path, reply: Reply) -> None:
    def failing(call: dict, number: int) -> Reply:
        return ANSWER if call == ASK else reply

    with FakeEndpoint(failing) as server, proxy(server.url, tmp_path) as tale:
        assert post(tale.url).json() == ANSWER.body
        (row,) = tale.rows(1)
    assert server.calls[1:] == [ASK]
    assert (row.arm, row.asked) == ("budget", None)
    assert row.reason in ("unreadable estimate", "estimate not answered")


def test_an_estimator_that_raises_is_counted(
    tmp_path: Path, estimator: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def estimate(*_: object) -> None:
        raise RuntimeError("2 + 5? and more of the question")

    monkeypatch.setattr(Constant, "estimate", estimate)
    with FakeEndpoint(script) as server, proxy(server.url, tmp_path, estimator) as tale:
        assert post(tale.url).json() == ANSWER.body
        metrics = CLIENT.get(f"{tale.url}/metrics").text
    assert server.calls == [ASK]
    assert 'tale_unchanged_total{reason="the estimator failed"} 1.0' in metrics
    assert "the estimator failed (RuntimeError)" in (shown := capsys.readouterr().out)
    assert "question" not in shown


def test_budgets_adapt_to_their_use_and_survive_a_restart(tmp_path: Path, estimator: str) -> None:
    """32 answers of 80 tokens, each asked for in 40: the next is asked for in 80."""
    with FakeEndpoint(lambda *_: answer("7", usage=used(20, 80))) as server:
        for count in (31, 1):
            with proxy(server.url, tmp_path / "run", estimator, "online=true") as tale:
                for _ in range(count):
                    post(tale.url)
        with proxy(server.url, tmp_path / "run", estimator, "online=true") as tale:
            assert post(tale.url).json()["tale"]["budget"] == 80


# --- Passed on -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        Reply(b'{"a" : 1.0,\n "choices":[]} ', headers={"X-Served-By": "a"}),
        events(*STREAM),
        Reply(b"\xff\xfe not JSON", 418),
        Reply(b"\x1f\x8b compressed", headers={"Content-Encoding": "gzip"}),
        refusal(429, "slow down", **{"Retry-After": "7"}),
    ],
)
def test_in_pass_mode_everything_is_the_upstreams(tmp_path: Path, reply: Reply) -> None:
    body = b'{"messages" :[{"role":"user","content":"Hi \\ud83d"}], "x": 1e3, "stream": true}'
    with FakeEndpoint(lambda *_: reply) as server, proxy(server.url, tmp_path, "mode=pass") as tale:
        with CLIENT.stream("POST", f"{server.url}/chat/completions?a=%2F", content=body) as direct:
            expected = (direct.status_code, b"".join(direct.iter_raw()))
        with CLIENT.stream("POST", f"{tale.url}/v1/chat/completions?a=%2F", content=body) as passed:
            assert (passed.status_code, b"".join(passed.iter_raw())) == expected
            left_out = {"transfer-encoding", "connection", "date"}
            both = [{(n, v) for n, v in each.headers.items() if n not in left_out} for each in (direct, passed)]
    assert both[0] == both[1]
    assert server.bodies == [body] * 2
    assert server.paths == ["/v1/chat/completions?a=%2F"] * 2
    apart = {"host": "", "connection": ""}
    assert {**server.headers[0], **apart} == {**server.headers[1], **apart}


def test_the_control_group_and_other_paths_pass_unchanged(tmp_path: Path) -> None:
    body = json.dumps(ASK, indent=3).encode()
    with FakeEndpoint(lambda *_: ANSWER) as server, proxy(server.url, tmp_path, "control_share=0.999999") as tale:
        reply = post(tale.url, body)
        models = CLIENT.get(f"{tale.url}/v1/models?x=1")
        CLIENT.post(f"{tale.url}/v1/embeddings", content=b"\x00")
        rows = tale.rows(3)
    assert (reply.json(), models.json()) == (ANSWER.body, ANSWER.body)
    assert server.bodies == [body, b"", b"\x00"]
    assert server.paths == ["/v1/chat/completions", "/v1/models?x=1", "/v1/embeddings"]
    assert [(row.arm, row.route, row.used) for row in rows] == [
        ("control", "chat/completions", 9),
        ("unchanged", "other", None),
        ("unchanged", "other", None),
    ]


def test_an_upstreams_error_under_a_budget_passes_as_it_is(tmp_path: Path, estimator: str) -> None:
    error = refusal(400, "too long", **{"x-request-id": "7"})
    with FakeEndpoint(lambda *_: error) as server, proxy(server.url, tmp_path, estimator) as tale:
        reply = post(tale.url)
    assert (reply.status_code, reply.json(), reply.headers["x-request-id"]) == (400, error.body, "7")
    assert len(server.calls) == 1


# --- Streams, time and failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["budget", "pass"])
def test_each_chunk_passes_before_the_next_is_made(tmp_path: Path, estimator: str, mode: str) -> None:
    """The server waits for the client to have each event before it makes the next."""
    seen = threading.Semaphore(0)
    reply = events(*STREAM, gate=lambda: seen.acquire(timeout=5) or pytest.fail("a chunk was kept back"))
    with FakeEndpoint(lambda *_: reply) as server, proxy(server.url, tmp_path, estimator, f"mode={mode}") as tale:
        body = json.dumps(ASK | {"stream": True})
        with CLIENT.stream("POST", f"{tale.url}/v1/chat/completions", content=body) as stream:
            lines = [line for line in stream.iter_lines() if line and seen.release() is None]
    assert len(lines) == 5


@pytest.mark.parametrize("begun", [False, True])
def test_a_client_that_leaves_cancels_the_call(tmp_path: Path, estimator: str, begun: bool) -> None:
    ended = threading.Event()

    def chunks() -> Iterator[bytes]:
        try:
            while True:
                yield b"data: {}\n\n"
                time.sleep(0.01)
        finally:
            ended.set()

    reply = Reply(chunks=chunks, headers={"Content-Type": "text/event-stream"}) if begun else Reply(hang=True)
    with FakeEndpoint(lambda *_: reply) as server, proxy(server.url, tmp_path, estimator) as tale:
        with (
            httpx2.Client(timeout=httpx2.Timeout(5, read=0.3)) as client,
            pytest.raises(httpx2.ReadTimeout) if not begun else client.stream(
                "POST", f"{tale.url}/v1/chat/completions", json=ASK
            ) as stream,
        ):  # fmt: skip
            next(stream.iter_raw()) if begun else client.post(f"{tale.url}/v1/chat/completions", json=ASK)
        (row,) = tale.rows(1)
        end = time.monotonic() + 5
        while not (ended.is_set() if begun else server.hung_up):
            assert time.monotonic() < end
            time.sleep(0.01)
    assert (row.outcome, row.used) == ("client left", None)


def test_a_lost_connection_is_tried_again_before_the_first_byte(tmp_path: Path, estimator: str) -> None:
    """Not after it: half an answer is passed on as half an answer."""

    def losing(_: dict, number: int) -> Reply:
        return Reply(hang=True) if number == 0 else Reply(ANSWER.body, cut=number == 2)

    with FakeEndpoint(losing) as server, proxy(server.url, tmp_path, "mode=pass") as tale:
        server.server.RequestHandlerClass.wait_for_the_end = lambda handler: setattr(handler, "close_connection", True)
        assert post(tale.url).json() == ANSWER.body
        with pytest.raises(httpx2.RemoteProtocolError):
            post(tale.url)
        rows = tale.rows(2)
    assert len(server.calls) == 3
    assert [(row.outcome, row.status) for row in rows] == [("done", 200), ("failed", 200)]


def test_no_upstream_is_a_502_and_a_slow_one_a_504(tmp_path: Path) -> None:
    with FakeEndpoint(lambda *_: Reply(hang=True)) as server:
        with proxy(server.url, tmp_path / "a", "mode=pass", "timeout=0.2") as tale:
            slow = post(tale.url)
            (row,) = tale.rows(1)
        assert (slow.status_code, row.outcome, row.status) == (504, "timed out", 504)
        assert slow.json()["error"]["message"] == "tale: no answer within timeout=0.2 seconds"
    with proxy(server.url, tmp_path / "b") as tale:
        gone = post(tale.url)
        assert (gone.status_code, tale.rows(1)[0].outcome) == (502, "failed")
    assert gone.json()["error"]["message"] == "tale: the upstream gave no answer (ConnectError)"


def test_more_requests_than_allowed_are_refused(tmp_path: Path) -> None:
    with (
        FakeEndpoint(lambda *_: Reply(hang=True)) as server,
        proxy(server.url, tmp_path, "mode=pass", "max_concurrency=1", "timeout=3") as tale,
    ):
        first = threading.Thread(target=lambda: post(tale.url))
        first.start()
        while not server.calls:
            time.sleep(0.005)
        assert post(tale.url).status_code == 503
        assert "tale_requests_in_flight 1.0" in CLIENT.get(f"{tale.url}/metrics").text
    first.join()


# --- Keys and logs ---------------------------------------------------------------------------------------------------


def test_the_proxys_key_opens_it_and_stays_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PROXY", "sesame")
    with (
        FakeEndpoint(script) as server,
        proxy(server.url, tmp_path, "mode=pass", "api_key_env=MY_PROXY") as tale,
    ):
        for headers, status in ({}, 401), ({"x-tale-key": "wrong"}, 401), ({"x-tale-key": "sesame"}, 200):
            assert post(tale.url, **headers, authorization=f"Bearer {KEY}").status_code == status
        pages = {
            path: CLIENT.get(f"{tale.url}{path}").status_code for path in ("/healthz", "/metrics", "/stats.json", "/")
        }
        assert pages == {"/healthz": 200, "/metrics": 401, "/stats.json": 401, "/": 401}
        assert CLIENT.get(f"{tale.url}/metrics", auth=("anyone", "sesame")).status_code == 200
    (headers,) = server.headers
    assert headers["authorization"] == f"Bearer {KEY}"
    assert "x-tale-key" not in headers


@pytest.mark.parametrize("texts", [False, True])
def test_no_text_and_no_key_is_logged_unless_asked_for(
    tmp_path: Path, estimator: str, texts: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = ASK | {"model": KEY, "user": "Bob", "messages": [{"role": "user", "content": "A secret: \ud83d?"}]}
    with (
        FakeEndpoint(script) as server,
        proxy(server.url, tmp_path / "run", estimator, f"log_texts={texts}") as tale,
    ):
        post(tale.url, asked, authorization=f"Bearer {KEY}")
        CLIENT.get(f"{tale.url}/v1/files/Bob?key={KEY}", headers={"api-key": KEY})
        (row, _), stats = tale.rows(2), CLIENT.get(f"{tale.url}/stats.json").text
        metrics = CLIENT.get(f"{tale.url}/metrics").text
    written = "".join(file.read_text() for file in (tmp_path / "run").iterdir())
    everywhere = written + stats + metrics + "".join(capfd.readouterr())
    assert KEY not in everywhere
    assert "secret" not in stats + metrics
    assert "Bob" not in everywhere
    assert ("secret" in written) == texts
    if texts:
        assert json.loads(row.messages or "") == asked["messages"]
        assert row.answer == "It is 7"
