"""The HTTP client of an endpoint: calls are limited in time and size, and go only to the server that was named."""

from __future__ import annotations

import ssl
import zlib
from functools import cache
from typing import Any

import anyio
import httpx2
from openai import DefaultAsyncHttpxClient

from tale.inference.openai.response import ChatResponse, NoCompletionError, status_inside

MOST, STEP = 8 * 2**20, 2**18  # bytes of a decompressed response, more than a million tokens; and of one chunk of it
REDIRECTS = 5
FRAMING = ("content-encoding", "content-length", "transfer-encoding")  # headers of the body's encoding


class UnusableResponseError(httpx2.RequestError):
    """A response of status 200 without a completion. The call is retried, as after a lost connection."""


class BoundedClient(DefaultAsyncHttpxClient):
    """Calls of at most `seconds` each, from the first byte sent to the last one received.

    The official client retries a call for which this one raises a `RequestError`: time-out, lost connection, response
    too large or unusable. An error inside a response of status 200 gets the status that it names, or 500.
    """

    def __init__(self, seconds: float):
        super().__init__(timeout=seconds, headers={"Accept-Encoding": "identity"}, verify=_trusted())
        self.seconds = seconds

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """The response with its whole body.

        Raises:
            httpx2.RequestError: there is no usable response.
        """
        try:
            with anyio.fail_after(self.seconds):
                response, content = await self._followed(request, options)
        except TimeoutError as error:
            raise httpx2.ReadTimeout("the time is up", request=request) from error
        status = response.status_code
        if response.is_success:
            status = status_inside(content) or status
        if httpx2.codes.is_success(status):
            _check(content)
        kept = {name: value for name, value in response.headers.items() if name not in FRAMING}
        return httpx2.Response(status, headers=kept, content=content, request=response.request)

    async def _followed(self, request: httpx2.Request, options: dict[str, Any]) -> tuple[httpx2.Response, bytes]:
        """The response after redirects within the same server. Another server gets neither prompts nor key."""
        for _ in range(REDIRECTS):
            response = await super().send(request, **options | {"stream": True, "follow_redirects": False})
            content = await _content(response)
            onward = response.next_request
            if not onward or onward.method != request.method or not _same_server(request.url, onward.url):
                break
            request = onward
        return response, content


@cache
def _trusted() -> ssl.SSLContext:
    """Cached, as it takes longer than a call."""
    return httpx2.create_ssl_context()


def _same_server(one: httpx2.URL, other: httpx2.URL) -> bool:
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)


async def _content(response: httpx2.Response) -> bytes:
    """The decompressed body, read up to the size limit."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise UnusableResponseError(f"the reply is compressed by {encoding}, which was not requested")
    unpack = None if encoding in ("", "identity") else zlib.decompressobj(zlib.MAX_WBITS | 32)
    content = bytearray()
    try:
        async for chunk in response.aiter_raw():
            while chunk:
                content += unpack.decompress(chunk, STEP) if unpack else chunk
                chunk = unpack.unconsumed_tail if unpack else b""
                if len(content) > MOST:
                    raise UnusableResponseError(f"the reply is larger than {MOST >> 20} MB")
    except zlib.error as error:
        raise UnusableResponseError(f"the reply cannot be unpacked ({error})") from error
    finally:
        await response.aclose()
    return bytes(content)


def _check(content: bytes) -> None:
    try:
        ChatResponse.read(content)
    except NoCompletionError as error:
        raise UnusableResponseError(
            f"the reply is not a chat completion ({content[:1000].decode(errors='replace')})"
        ) from error
