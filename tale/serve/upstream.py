"""Calls to the upstream: bytes as they are, to the one server that was named, without redirects, cookies or proxies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from urllib.parse import unquote_to_bytes

import httpx2

from tale.inference.openai.urls import resolve_url
from tale.serve.budget import RefusedError
from tale.serve.recipe import ServeRecipe

# Headers of one connection (RFC 9110, 7.6.1), and those that a proxy writes itself.
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade".split()
)
FRAMING = frozenset(b"host content-length expect".split())
LOST = (httpx2.ConnectError, httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError)
IDLE = 128  # connections that are kept open without a call
Headers = list[tuple[bytes, bytes]]


class Upstream:
    """The server behind the proxy.

    Calls are made by a transport without a client around it: a client would keep one caller's cookies for the next,
    follow redirects, and add headers.

    Raises:
        UserError: the URL names an environment variable that is not set.
    """

    def __init__(self, recipe: ServeRecipe):
        self.base = httpx2.URL(resolve_url(recipe.upstream))
        self.retries = recipe.max_retries
        self.timeouts = {
            "timeout": {"connect": recipe.connect_timeout, "read": None, "write": None, "pool": None}
        }  # the whole call is timed by `Relay`
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=IDLE)
        self.transport = httpx2.AsyncHTTPTransport(limits=limits, trust_env=False)

    @asynccontextmanager
    async def call(
        self, method: str, path: bytes, query: bytes, headers: Headers, content: bytes
    ) -> AsyncIterator[httpx2.Response]:
        """The response to a call, its body not yet read; `path` follows the URL's own. A lost connection is retried.

        Raises:
            RefusedError: the path leaves the URL's own, or the upstream redirects.
            httpx2.RequestError: there is no response.
        """
        url = self.base.copy_with(raw_path=self._target(path, query))
        for retry in range(self.retries + 1):
            request = httpx2.Request(method, url, headers=headers, content=content or None, extensions=self.timeouts)
            try:
                response = await self.transport.handle_async_request(request)
                break
            except LOST:
                if retry == self.retries:
                    raise
        try:
            if response.has_redirect_location:
                raise RefusedError(502, "the upstream redirects, which is not followed; correct `upstream`")
            yield response
        finally:
            await response.aclose()

    async def close(self) -> None:
        """Close all connections."""
        await self.transport.aclose()

    def _target(self, path: bytes, query: bytes) -> bytes:
        if {b".", b".."} & set(unquote_to_bytes(path).split(b"/")):
            raise RefusedError(400, "the path has a . or .. in it")
        own, _, always = self.base.raw_path.partition(b"?")
        joined = b"&".join(filter(None, (query, always)))
        return own.rstrip(b"/") + path + (b"?" + joined if joined else b"")


def forwarded(headers: Iterable[tuple[bytes, bytes]], *dropped: bytes) -> Headers:
    """The headers that a proxy passes on, without those of the connection and those `dropped`; names in lower case."""
    given = [(name.lower(), value) for name, value in headers]
    named = {each.strip().lower() for name, value in given if name == b"connection" for each in value.split(b",")}
    out = HOP_BY_HOP | named | set(dropped)
    return [(name, value) for name, value in given if name not in out]
