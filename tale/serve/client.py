"""The client's side of a request through the proxy: its headers and body, and what is sent back, as ASGI messages."""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tale.serve.budget import RefusedError
from tale.serve.reply import dumped
from tale.serve.upstream import Headers

KEY = b"x-tale-key"
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def has_key(given: str, key: str | None) -> bool:
    """Whether a client has given the proxy's key, if it has one; takes as long for a wrong key as for the right one."""
    return not key or hmac.compare_digest(given.encode(), key.encode())


class Client:
    """Who made a request. `status` is that of the answer, None before it; `first_byte` is in seconds."""

    def __init__(self, headers: Headers, receive: Receive, send: Send):
        self.headers, self.receive, self.send = headers, receive, send
        self.began = time.perf_counter()
        self.status: int | None = None
        self.first_byte: float | None = None

    @property
    def seconds(self) -> float:
        """Since its request began."""
        return time.perf_counter() - self.began

    def header(self, name: bytes) -> str | None:
        """The first header of this name, which is in lower case."""
        return next((value.decode("latin-1") for given, value in self.headers if given == name), None)

    async def body(self, max_body_mb: float) -> bytes:
        """The request's body.

        Raises:
            RefusedError: it is too large, and the rest is not read; or the client left.
        """
        most = int(max_body_mb * 10**6)
        body, more = bytearray(), True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise RefusedError(400, "the client left before the end of its request")
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > most or int(self.header(b"content-length") or 0) > most:
                raise RefusedError(413, f"the request is larger than max_body_mb={max_body_mb:g}")
        return bytes(body)

    async def leaves(self) -> None:
        """Wait until the client has left."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def begin(self, status: int, headers: Headers) -> None:
        """Send the answer's status and headers."""
        self.status = status
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, chunk: bytes) -> None:
        """Send a part of the answer's body."""
        if not chunk:
            return
        if self.first_byte is None:
            self.first_byte = self.seconds
        await self.send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self) -> None:
        """End the answer."""
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def refuse(self, status: int, message: str) -> None:
        """Send an error of the proxy's own, in OpenAI's form; nothing if an answer has begun."""
        if self.status is not None:
            return
        content = dumped({"error": {"message": f"tale: {message}", "type": "proxy_error", "code": status}})
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        await self.begin(status, headers)
        await self.send({"type": "http.response.body", "body": content})
