"""A chat completions endpoint on loopback that replies what a test has written."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass
class Reply:
    """A response, after `seconds`. `cut` loses the connection in mid-body; `hang` waits until the client hangs up.

    With `chunks` the body comes piece by piece, and may have no end.
    """

    body: str | bytes | dict = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0
    cut: bool = False
    hang: bool = False
    chunks: Callable[[], Iterable[bytes]] | None = None


def answer(*texts: str | None, finish: str = "stop", usage: dict | None = None, **more: Any) -> Reply:
    """A chat completion with a choice for each text; `more` goes into each message."""
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text, **more}, "finish_reason": finish}
        for i, text in enumerate(texts)
    ]
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": choices}
    return Reply(body | ({"usage": usage} if usage else {}))


def used(prompt: int, answer: int, cached: int | None = None, reasoning: int | None = None) -> dict:
    """Usage figures, with details where they are given."""
    usage: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
    if cached is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    if reasoning is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return usage


def refusal(status: int, message: str, **headers: str) -> Reply:
    """An error as OpenAI words it; the client need not wait before it asks again."""
    return Reply({"error": {"message": message}}, status, {"retry-after-ms": "1", **headers})


class Server(ThreadingHTTPServer):
    """A server on which as many connections can wait as a test makes, however slow the machine is."""

    request_queue_size = 256


class FakeEndpoint:
    """A server for the length of a `with`. `script` maps a call's JSON and its number, from 0, to the reply."""

    def __init__(self, script: Callable[[dict, int], Reply]):
        self.script = script
        self.calls: list[dict] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.most_under_way = self.under_way = self.hung_up = 0
        self.lock = threading.Lock()
        self.server = Server(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body, call = self.rfile.read(int(self.headers.get("Content-Length", 0))), {}
                with suppress(ValueError, RecursionError):
                    call = json.loads(body)
                with endpoint.lock:
                    number = len(endpoint.calls)
                    endpoint.calls.append(call)
                    endpoint.bodies.append(body)
                    endpoint.headers.append({name.lower(): value for name, value in self.headers.items()})
                    endpoint.paths.append(self.path)
                    endpoint.under_way += 1
                    endpoint.most_under_way = max(endpoint.most_under_way, endpoint.under_way)
                try:
                    reply = endpoint.script(call, number)
                    time.sleep(reply.seconds)
                finally:
                    with endpoint.lock:
                        endpoint.under_way -= 1
                self.wait_for_the_end() if reply.hang else self.send(reply)

            do_GET = do_POST

            def wait_for_the_end(self) -> None:
                with suppress(ConnectionError):
                    self.connection.recv(1)
                with endpoint.lock:
                    endpoint.hung_up += 1
                self.close_connection = True

            def send(self, reply: Reply) -> None:
                body = json.dumps(reply.body) if isinstance(reply.body, dict) else reply.body
                content = body.encode() if isinstance(body, str) else body
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                if reply.chunks:
                    self.end_headers()
                    self.close_connection = True
                    for chunk in reply.chunks():
                        self.wfile.write(chunk)
                    return
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if reply.cut else content)
                self.close_connection = reply.cut

            def handle(self) -> None:
                with suppress(ConnectionError):  # the client has given up
                    super().handle()

            def log_message(self, *_: object) -> None:
                pass

        return Handler
