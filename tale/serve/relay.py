"""The way of a request through the proxy, as an ASGI application: `/v1/*` to the upstream and back.

Nothing is buffered but a request's body and a whole (not streamed) answer under a budget. The next chunk is read from
the upstream when the client has taken the last one.
"""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Callable, MutableMapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import anyio
import httpx2

from tale.inference.openai.response import HALF_CHARACTERS
from tale.secrets import redact
from tale.serve.budget import HEADER, Budgeted, Call, RefusedError, decide, with_budget
from tale.serve.client import KEY, Client, Receive, Send, has_key
from tale.serve.estimates import Estimates, Found
from tale.serve.log import RequestRow
from tale.serve.recipe import PASS, ServeRecipe
from tale.serve.reply import Answer, EventReader, dumped, extended, parsed
from tale.serve.upstream import FRAMING, Headers, Upstream, forwarded
from tale.text import log_warning, printable

PREFIX = b"/v1"
CHAT = b"/chat/completions"
LARGEST_ANSWER = 64 * 2**20  # bytes of a whole answer that is read; of an unchanged one, the rest passes unread


class Relay:
    """Requests below `PREFIX`. `done` gets the row of each request that has ended."""

    def __init__(
        self,
        recipe: ServeRecipe,
        upstream: Upstream,
        estimates: Estimates,
        key: str | None,
        done: Callable[[RequestRow], None],
    ):
        self.recipe = recipe
        self.upstream = upstream
        self.estimates = estimates
        self.key = key
        self.done = done
        self.in_flight = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request. An answer that ends early ends with its connection, as the upstream's did."""
        exchange = Exchange(self, scope, receive, send)
        self.in_flight += 1
        try:
            await exchange.run()
        finally:
            self.in_flight -= 1
            self.done(exchange.row)


class Exchange:
    """One request and its answer."""

    def __init__(self, relay: Relay, scope: MutableMapping[str, Any], receive: Receive, send: Send):
        self.relay, self.recipe = relay, relay.recipe
        self.scope = scope
        self.client = Client(scope["headers"], receive, send)
        self.path: bytes = scope["raw_path"][len(PREFIX) :]
        self.chat = scope["method"] == "POST" and self.path == CHAT
        self.row = RequestRow(route="chat/completions" if self.chat else "other")
        self.answer = Answer(texts=[] if self.recipe.log_texts else None)
        self.before = Answer()  # the answer that was cut empty, if one was

    async def run(self) -> None:
        """Answer it, and complete its row."""
        row = self.row
        try:
            if self.relay.in_flight > self.recipe.max_concurrency:
                raise RefusedError(503, f"max_concurrency={self.recipe.max_concurrency} requests are in flight")
            if not self.scope["raw_path"].startswith(PREFIX + b"/"):
                raise RefusedError(404, f"no such path; the upstream's begin with {PREFIX.decode()}/")
            if not has_key(self.client.header(KEY) or "", self.relay.key):
                raise RefusedError(401, f"the header {KEY.decode()} does not have this proxy's key")
            with anyio.move_on_after(self.recipe.timeout) as limit:
                body = await self.client.body(self.recipe.max_body_mb)
                watcher = asyncio.create_task(self._watch(limit))
                try:
                    await self._answer(body)
                finally:
                    watcher.cancel()
            if limit.cancelled_caught and row.outcome != "client left":
                row.outcome = "timed out"
                await self.client.refuse(504, f"no answer within timeout={self.recipe.timeout:g} seconds")
        except RefusedError as error:
            row.outcome, row.reason = "refused", str(error)
            await self.client.refuse(error.status, str(error))
        except httpx2.RequestError as error:
            row.outcome, row.reason = "failed", type(error).__name__
            await self.client.refuse(502, f"the upstream gave no answer ({type(error).__name__})")
        except Exception as error:  # a fault of the proxy; its text might have the request's in it
            row.outcome, row.reason = "failed", type(error).__name__
            log_warning(f"a request failed: {type(error).__name__} at {_place(error)}; this is a bug")
            await self.client.refuse(500, f"{type(error).__name__}; this is a bug of the proxy")
        finally:
            self._complete_row()

    async def _answer(self, body: bytes) -> None:
        """Decide, and pass the answer on."""
        call = Call.read(body) if self.chat else None
        row, limit = self.row, None
        decision = decide(call, self.client.header(HEADER.encode()), self.recipe)
        row.arm, row.reason, row.key, row.source = decision.arm, decision.reason, decision.key, decision.source
        if call:
            row.model, row.stream = _model(call.model[:1000]), call.streams
            row.messages = json.dumps(call.body["messages"]) if self.recipe.log_texts else None
        found = None
        if decision.arm == "budget" and decision.budget is None:
            assert call
            found = await self.relay.estimates.find(call, str(decision.key), self._ask)
            row.source, row.reason = found.source, found.reason
            row.estimator_prompt_tokens, row.estimator_tokens = found.prompt_tokens, found.tokens
        budget = found.budget if found else decision.budget
        if call and budget:
            limit = with_budget(call, budget, self.recipe)
            row.asked, row.limit = limit.asked, limit.limit
        await self._pass(body, limit)
        if found and found.budget and row.asked and call and call.choices == 1:
            self._observe(found)

    async def _pass(self, body: bytes, budgeted: Budgeted | None) -> None:
        """Call the upstream, and pass its answer on: read beside, and under a budget with its extension."""
        async with self._upstream(budgeted.content if budgeted else body) as response:
            kind = response.headers.get("content-type", "").partition(";")[0].strip()
            plain = response.headers.get("content-encoding", "identity") == "identity"
            read = self.chat and self.recipe.mode != PASS and response.status_code == 200 and plain
            if read and kind == "text/event-stream":
                await self._pass_events(response, body, bool(budgeted))
            elif read and budgeted:
                await self._pass_document(response, body)
            else:
                await self._start(response)
                content = bytearray()
                async for chunk in response.aiter_raw():
                    await self.client.write(chunk)
                    if read and len(content) <= LARGEST_ANSWER:
                        content += chunk
                if document := parsed(bytes(content)):
                    self.answer.note(document)
        self.row.outcome = "done"
        await self.client.end()

    async def _pass_document(self, response: httpx2.Response, body: bytes) -> None:
        """A whole answer under a budget; if the limit cut it before its first word, that of a call without a budget."""
        content, document = await self._document(response)
        if document and self.answer.cut_empty and self.row.limit is not None:
            async with self._upstream(body) as again:
                if again.status_code == 200:
                    self._retry()
                    response, (content, document) = again, await self._document(again)
        if document:
            content = dumped(self._extended(document))
        await self._start(response, len(content), self._result_headers())
        await self.client.write(content)

    async def _document(self, response: httpx2.Response) -> tuple[bytes, dict[str, Any] | None]:
        content = await self._whole(response)
        if document := parsed(content):
            self.answer.note(document)
        return content, document

    async def _pass_events(self, response: httpx2.Response, body: bytes, budgeted: bool) -> None:
        """A stream, each chunk as it comes; under a budget by whole lines, with the extension at its end."""
        await self._start(response)
        reader = EventReader(lambda document: self._event(document, reader, hold=self.row.limit is not None))
        if not budgeted:
            async for chunk in response.aiter_raw():
                reader.feed(chunk)
                await self.client.write(chunk)
            return
        await self._pass_lines(response, reader)
        if reader.hold:
            async with self._upstream(body) as again:
                if again.status_code == 200:
                    self._retry()
                    second = EventReader(lambda document: self._event(document, second, hold=False))
                    await self._pass_lines(again, second)
                else:
                    await self.client.write(b"".join(reader.held))

    async def _pass_lines(self, response: httpx2.Response, reader: EventReader) -> None:
        try:
            async for chunk in response.aiter_raw():
                await self.client.write(reader.feed(chunk))
        finally:  # a stream that was cut within a line is passed on as far as it came
            await self.client.write(reader.end())

    def _event(self, document: dict[str, Any], reader: EventReader, hold: bool) -> dict[str, Any] | None:
        """Take what an event of a stream tells; the event with the extension, where an answer or its usage ends."""
        self.answer.note(document)
        if hold and self.answer.cut_empty:
            reader.hold = True
        ends = any(isinstance(c, dict) and c.get("finish_reason") for c in document.get("choices") or ())
        return self._extended(document) if self.row.asked and (ends or document.get("usage")) else None

    def _retry(self) -> None:
        """The answer that was cut empty becomes a cost of the one that is asked again."""
        self.row.retried = True
        self.before, self.answer = self.answer, Answer(texts=self.answer.texts)

    def _extended(self, document: dict[str, Any]) -> dict[str, Any]:
        row, before = self.row, self.before
        prompt_tokens = row.estimator_prompt_tokens + (before.prompt_tokens or 0)
        return extended(document, self._extension(), prompt_tokens, row.estimator_tokens + (before.used or 0))

    def _extension(self) -> dict[str, Any]:
        """What the field `tale` says of the budget and its use."""
        row = self.row
        return {
            "budget": row.asked,
            "source": row.source,
            "limit": row.limit,
            "used": self.answer.used,
            "limit_fired": self._limit_fired,
            "retried": row.retried,
            "retried_tokens": self.before.used or 0,
            "estimator_prompt_tokens": row.estimator_prompt_tokens,
            "estimator_tokens": row.estimator_tokens,
        }

    @property
    def _limit_fired(self) -> bool:
        answer = self.before if self.row.retried else self.answer
        return self.row.limit is not None and answer.finish == "length"

    def _result_headers(self) -> Headers:
        """What is known once the whole answer is there."""
        used = [(b"x-tale-used", b"%d" % self.answer.used)] if self.answer.used is not None else []
        return [
            *used,
            (b"x-tale-limit-fired", b"true" if self._limit_fired else b"false"),
            (b"x-tale-retried", b"true" if self.row.retried else b"false"),
        ]

    def _budget_headers(self) -> Headers:
        """What is known before the answer; nothing with mode=pass and on other routes."""
        row = self.row
        if not self.chat or self.recipe.mode == PASS:
            return []
        numbers = {"budget": row.asked, "limit": row.limit, "estimator-tokens": row.estimator_tokens or None}
        found = [(f"x-tale-{name}".encode(), b"%d" % value) for name, value in numbers.items() if value is not None]
        source = [(b"x-tale-source", row.source.encode())] if row.source else []
        return [(b"x-tale-arm", row.arm.encode()), *source, *found]

    # --- The upstream's side -----------------------------------------------------------------------------------------

    def _upstream(self, content: bytes) -> Any:
        """A call to the upstream. Answers that are read are requested uncompressed."""
        plain = self.chat and self.recipe.mode != PASS
        more = [(b"accept-encoding", b"identity")] if plain else []
        own = (HEADER.encode(), b"accept-encoding") if plain else ()
        headers = [*forwarded(self.client.headers, KEY, *FRAMING, *own), *more]
        return self.relay.upstream.call(self.scope["method"], self.path, self.scope["query_string"], headers, content)

    async def _ask(self, content: bytes) -> bytes | None:
        """The estimator's own call, with the client's key; None if it fails."""
        try:
            async with self._upstream(content) as response:
                return (await self._whole(response)) if response.status_code == 200 else None
        except (httpx2.RequestError, RefusedError):
            return None

    @staticmethod
    async def _whole(response: httpx2.Response) -> bytes:
        """A response's whole body.

        Raises:
            RefusedError: it is too large; the rest is not read.
        """
        content = bytearray()
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > LARGEST_ANSWER:
                raise RefusedError(502, f"the upstream's answer is larger than {LARGEST_ANSWER >> 20} MB")
        return bytes(content)

    # --- The client's side -------------------------------------------------------------------------------------------

    async def _watch(self, scope: anyio.CancelScope) -> None:
        """Cancel the answer when the client leaves, and with it the upstream's call."""
        await self.client.leaves()
        self.row.outcome = "client left"
        scope.cancel()

    async def _start(self, response: httpx2.Response, length: int | None = None, more: Headers | None = None) -> None:
        """Begin the answer with the upstream's status and headers; `length` is that of a body that was changed."""
        changed = length is not None or bool(self.row.asked)
        headers = forwarded(response.headers.raw, *([b"content-length"] if changed else []))
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        await self.client.begin(response.status_code, [*headers, *self._budget_headers(), *(more or [])])

    def _observe(self, found: Found) -> None:
        if self.row.outcome == "done" and self.client.status == 200 and self.answer.used and not self.row.retried:
            self.relay.estimates.note(found, self.answer.used)

    def _complete_row(self) -> None:
        row, answer, before = self.row, self.answer, self.before
        row.status, row.first_byte, row.seconds = self.client.status, self.client.first_byte, self.client.seconds
        row.finish = answer.finish
        if answer.prompt_tokens is not None:
            row.prompt_tokens = answer.prompt_tokens + (before.prompt_tokens or 0)
        row.limit_fired = self._limit_fired
        if answer.used is not None:
            row.used = answer.used + (before.used or 0)
            row.counted = "events" if answer.tokens is None else "usage"
        row.answer = HALF_CHARACTERS.sub("\ufffd", "".join(answer.texts)) if answer.texts is not None else None


def _place(error: Exception) -> str:
    """File and line that raised it."""
    *_, frame = traceback.extract_tb(error.__traceback__)
    return f"{Path(frame.filename).name}:{frame.lineno}"


@lru_cache(256)
def _model(name: str) -> str:
    """A model's name for the log: short, printable, and without a key that a client put in its place."""
    return printable(redact(name), 100)
