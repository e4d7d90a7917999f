"""What a hostile client or server comes to: each ends in a known status, and the next request is answered."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tale.estimators.base import Constant
from tale.estimators.saved import EstimatorCard, save_estimator
from tests.fake_endpoint import FakeEndpoint, Reply, answer, used
from tests.serve_proxy import Proxy, proxy

pytest.importorskip("fastapi", reason="pip install -e '.[serve]' brings what serving needs")

CLIENT = httpx2.Client(verify=False, timeout=20)  # to plain HTTP alone
ASK = {"model": "m", "messages": [{"role": "user", "content": "2 + 5?"}]}
ANSWER = answer("It is 7", usage=used(20, 9))
STREAM = {"Content-Type": "text/event-stream"}


def healthy(*_: object) -> Reply:
    return ANSWER


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A trained estimator of 40 tokens."""
    save_estimator(Constant(40), EstimatorCard("t", [], []), tmp_path / "constant")
    return [f"estimator={tmp_path / 'constant'}"]


def post(tale: Proxy, body: object = None, **headers: str) -> httpx2.Response:
    content = body if isinstance(body, bytes) else json.dumps(body or ASK).encode()
    return CLIENT.post(f"{tale.url}/v1/chat/completions", content=content, headers=headers)


def raw(tale: Proxy, request: bytes, end: bytes = b"no end") -> bytes:
    """What the proxy says to bytes on its socket, to its end."""
    host, port = tale.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(request)
        said = b""
        while not said.endswith(end) and (chunk := connection.recv(65536)):
            said += chunk
    return said


def endless(line: bytes) -> Iterator[bytes]:
    while True:
        yield line
        time.sleep(0.01)


@pytest.mark.parametrize("line", [b'data: {"choices": []}\n\n', b"x" * 2**18], ids=["events", "one line"])
def test_an_endless_stream_ends_with_its_time(tmp_path: Path, words: list[str], line: bytes) -> None:
    reply = Reply(chunks=lambda: endless(line), headers=STREAM)
    with FakeEndpoint(lambda *_: reply) as server, proxy(server.url, tmp_path, *words, "timeout=1") as tale:
        with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
            post(tale)
        (row,) = tale.rows(1)
        server.script = healthy
        assert post(tale).status_code == 200
    assert (row.outcome, row.status) == ("timed out", 200)
    assert round(row.seconds, 2) >= 1  # uvloop's clock counts whole milliseconds


def test_a_slow_upstream_is_waited_for_until_its_time(tmp_path: Path, words: list[str]) -> None:
    slow = Reply(ANSWER.body, seconds=0.4)
    with FakeEndpoint(lambda *_: slow) as server:
        for seconds, status in ((0.2, 504), (5, 200)):
            with proxy(server.url, tmp_path / str(status), *words, f"timeout={seconds}") as tale:
                assert post(tale).status_code == status


def test_a_body_of_100_mb_is_refused_and_not_read(tmp_path: Path, words: list[str]) -> None:
    """By its length, or once that much has come; the server hears of neither."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"
    piece = b"20000\r\n" + 0x20000 * b"x"
    with FakeEndpoint(healthy) as server, proxy(server.url, tmp_path, *words, "max_body_mb=0.1") as tale:
        told = raw(tale, head + b"Content-Length: %d\r\n\r\n{" % (100 * 2**20), end=b"}}")
        chunked = raw(tale, head + b"Transfer-Encoding: chunked\r\n\r\n" + piece, end=b"}}")
        assert post(tale).status_code == 200
        refused = tale.rows(3)[:2]
    assert len(server.calls) == 1
    assert [row.outcome for row in refused] == ["refused"] * 2
    for said in (told, chunked):
        assert said.startswith(b"HTTP/1.1 413 ")
        assert b"larger than max_body_mb=0.1" in said


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
        b"[" * 10**5,
        b"null",
        b"",
        b'{"messages": 7}',
        b'{"messages": [7], "model": {}}',
    ],
    ids=["invalid UTF-8", "deep", "null", "empty", "no messages", "no message"],
)
def test_what_is_no_request_is_left_to_the_upstream(tmp_path: Path, words: list[str], body: bytes) -> None:
    with FakeEndpoint(lambda *_: Reply("bad", 400)) as server, proxy(server.url, tmp_path, *words) as tale:
        assert (post(tale, body).status_code, server.bodies) == (400, [body])


@pytest.mark.parametrize("mode", ["budget", "pass"])
def test_a_stream_cut_within_an_event_ends_as_it_came(tmp_path: Path, words: list[str], mode: str) -> None:
    """All bytes that came, and then a broken connection, so that the client knows."""
    sent = b'data: {"choices": []}\n\ndata: {"choi'
    length = {**STREAM, "Content-Length": "1000"}
    cut = Reply(chunks=lambda: iter([sent]), headers=length)
    with FakeEndpoint(lambda *_: cut) as server, proxy(server.url, tmp_path, *words, f"mode={mode}") as tale:
        said = raw(
            tale,
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s"
            % (len(json.dumps(ASK)), json.dumps(ASK).encode()),
        )
        (row,) = tale.rows(1)
    assert (row.outcome, row.reason) == ("failed", "RemoteProtocolError")
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"".join(said.split(b"\r\n")).count(b'data: {"choi') == 2
    assert not said.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("to", ["http://elsewhere.test/v1/chat/completions", "/v1/other"])
def test_a_redirect_is_refused_and_not_passed_on(tmp_path: Path, words: list[str], to: str) -> None:
    """A client that followed it would send prompt and key elsewhere, or around the proxy."""
    with FakeEndpoint(lambda *_: Reply("", 307, {"Location": to})) as server:
        for folder, mode in (("a", "budget"), ("b", "pass")):
            with proxy(server.url, tmp_path / folder, *words, f"mode={mode}") as tale:
                reply = post(tale, authorization="Bearer sk-1")
                assert (reply.status_code, "location" in reply.headers) == (502, False)
    assert "redirects" in reply.json()["error"]["message"]
    assert len(server.calls) == 2


@pytest.mark.parametrize(
    "path", ["/v1/../admin", "/v1/%2e%2e/admin", "/v1/a/%2E./x", "/%761/models", "/v1//models/./x"]
)
def test_no_path_leads_out_of_the_upstreams_own(tmp_path: Path, words: list[str], path: str) -> None:
    with FakeEndpoint(healthy) as server, proxy(server.url, tmp_path, *words) as tale:
        said = raw(tale, f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    assert said.split(b" ")[1] in (b"400", b"404")
    assert server.calls == []


def test_no_header_is_injected(tmp_path: Path, words: list[str]) -> None:
    """Neither by values with line ends, nor by a model's name; headers of the connection stay on it."""
    evil = "m\r\nX-Evil: 1\r\n\r\n"
    with FakeEndpoint(healthy) as server, proxy(server.url, tmp_path, *words) as tale:
        for value in (b"a\rX-Evil: 1", b"a\x00b", b"40\x0bX-Evil: 1"):
            said = raw(
                tale, b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX-Token-Budget: %s\r\nConnection: close\r\n\r\n" % value
            )
            assert b"x-evil" not in said.lower()
        reply = post(
            tale, ASK | {"model": evil}, **{"connection": "keep-alive, x-mine", "x-mine": "1", "te": "trailers"}
        )
    assert (reply.status_code, "x-evil" in reply.headers) == (200, False)
    for headers in server.headers:
        assert not {"x-evil", "x-mine", "te", "x-token-budget"} & headers.keys()


def test_a_cookie_stays_with_its_client(tmp_path: Path, words: list[str]) -> None:
    reply = Reply(ANSWER.body, headers={"Set-Cookie": "a=b"})
    with FakeEndpoint(lambda *_: reply) as server, proxy(server.url, tmp_path, *words) as tale:
        for _ in range(2):
            assert httpx2.Client(verify=False).post(f"{tale.url}/v1/x").headers["set-cookie"] == "a=b"
    assert not any("cookie" in headers for headers in server.headers)


@pytest.mark.parametrize("budget", ["0", "-1", "1000000000", "", "1e3", "٣"])
def test_a_clients_budget_that_is_none_is_a_400(tmp_path: Path, words: list[str], budget: str) -> None:
    with FakeEndpoint(healthy) as server, proxy(server.url, tmp_path, *words) as tale:
        reply = CLIENT.post(f"{tale.url}/v1/chat/completions", json=ASK, headers={"X-Token-Budget": budget.encode()})
        assert (reply.status_code, server.calls) == (400, [])
    assert reply.json()["error"]["message"] == "tale: x-token-budget: a budget must be an integer from 1 to 8192 tokens"


def test_budget_words_in_a_users_own_text_change_nothing(tmp_path: Path, words: list[str]) -> None:
    """Nor do placeholders of a budget line; a line of the budget's own form is the user's budget, and passes."""
    line = "Let's think step by step and use less than {} tokens:"
    texts = [
        "use less than 5 tokens, {budget} {question} {format}",
        f"Translate: {line.format(5)}",
        line.format("{budget}"),
    ]
    with FakeEndpoint(healthy) as server, proxy(server.url, tmp_path, *words) as tale:
        for text in [*texts, f"Why?\n{line.format(10**9)}", f"Why?\n{line.format(7)}\n"]:
            post(tale, ASK | {"messages": [{"role": "user", "content": text}]})
    sent = [call["messages"][0]["content"] for call in server.calls]
    asked = [f"{text}\n{line.format(40)}\n" for text in [*texts, f"Why?\n{line.format(10**9)}"]]
    assert sent == [*asked, f"Why?\n{line.format(7)}\n"]


def test_an_answer_without_end_is_not_held(tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole answer under a budget is read up to a size."""
    monkeypatch.setattr("tale.serve.relay.LARGEST_ANSWER", 10**5)
    reply = Reply(chunks=lambda: endless(b" " * 2**16))
    with FakeEndpoint(lambda *_: reply) as server, proxy(server.url, tmp_path, *words) as tale:
        assert post(tale).status_code == 502


def test_a_fault_of_the_proxy_is_a_500_without_the_text(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: object) -> None:
        raise KeyError("2 + 5?")

    monkeypatch.setattr("tale.serve.relay.decide", failing)
    with FakeEndpoint(healthy) as server, proxy(server.url, tmp_path, *words) as tale:
        reply = post(tale)
        (row,) = tale.rows(1)
    assert (reply.status_code, row.outcome, row.reason) == (500, "failed", "KeyError")
    assert "a request failed: KeyError at test_attacks.py" in (shown := capsys.readouterr().out)
    assert "2 + 5?" not in shown + reply.text
