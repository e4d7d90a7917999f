"""Any OpenAI-compatible endpoint, asked through the official client: OpenAI, vLLM, SGLang, llama.cpp, a gateway."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from tale.chat import Chat
from tale.config import EndpointConfig
from tale.engines.address import address, held
from tale.engines.base import Completion, More, Request, Sampling, nothing
from tale.engines.reply import NoCompletionError, Reply
from tale.errors import UserError
from tale.models.base import tokenizer_alone

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAIError

OPENAI = "https://api.openai.com/v1"
SHOWN = 200  # characters of a server's own words in an error


@dataclass(frozen=True)
class RemoteModel:
    """A model behind an endpoint: known by name, its weights never seen. Without a `url` OpenAI serves it."""

    name: str
    url: str | None
    tokenizer: str | None
    template: str
    merge: ClassVar[None] = None
    context: ClassVar[None] = None  # a server does not say

    @property
    def identity(self) -> dict[str, str]:
        """What a run keeps of the model: its name and where it is, without user, password and query."""
        return {"name": self.name, "endpoint": public(self.url)}

    def chat(self) -> Chat | None:
        """The tokenizer that counts, with its chat template; None where none is named.

        Raises:
            UserError: it cannot be read.
        """
        if self.tokenizer is None:
            return None
        return tokenizer_alone(self.tokenizer, self.template, "engine.endpoint.tokenizer")


class EndpointEngine:
    """Chat completions of `model`, with at most `concurrency` calls under way.

    Tokens are what the endpoint's usage says, or with `chat` what its tokenizer counts: the prompt in its template,
    and the answer's text, its end token if it ended, and its reasoning (reported, or else in the reply). An endpoint
    gets a temperature and a seed; what else its server applies by default (top-p, penalties) is set there.

    Raises:
        UserError: the client is not installed, the url is none, the key is missing, or `grouped` lacks a tokenizer.
    """

    def __init__(self, model: str, config: EndpointConfig, concurrency: int, chat: Chat | None = None):
        if importlib.util.find_spec("openai") is None:
            raise UserError("engine.kind=openai: the client is not installed; pip install -e '.[openai]' brings it")
        if not _is_address(config.url or OPENAI):
            raise UserError("engine.endpoint.url: it begins with http:// or https://, names a host and ends in /v1")
        key = _key(config)
        if config.url is None and not key:
            raise UserError(f"engine.endpoint.key: OpenAI wants a key in the environment variable {config.key}")
        if not (key.isascii() and key.isprintable()):
            raise UserError(f"engine.endpoint.key: what {config.key} holds is no key: it has characters that none has")
        if config.grouped and chat is None:
            raise UserError("engine.endpoint.grouped: usage is of all choices together; set engine.endpoint.tokenizer")
        self.model = model
        self.config = config
        self.concurrency = concurrency
        self.chat = chat
        self.where = public(config.url)
        self.tokenizer = config.tokenizer or f"usage of {model} at {self.where}"
        # Every server knows max_tokens, and several ignore its successor; OpenAI's newer models refuse it (`_post`).
        self.limit = "max_completion_tokens" if config.url is None else "max_tokens"

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, more: More = nothing
    ) -> Iterator[tuple[int, Completion]]:
        """Yield `(index, completion)` as soon as its call is done; calls go on while the consumer is busy.

        Raises:
            UserError: a call failed for good, or its reply is no chat completion. By then no further call has been
                made, and every answer under way has been waited for and yielded.
        """
        from anyio.from_thread import start_blocking_portal

        answers: SimpleQueue[tuple[int, Completion] | None] = SimpleQueue()
        with start_blocking_portal() as portal:  # an event loop on a thread; both end with this block, however it ends
            asked = portal.start_task_soon(self._ask_all, requests, sampling, answers.put)
            asked.add_done_callback(lambda _: answers.put(None))
            yield from iter(answers.get, None)
            asked.result()

    async def _ask_all(
        self, requests: Sequence[Request], sampling: Sampling, put: Callable[[tuple[int, Completion]], None]
    ) -> None:
        """`concurrency` workers take the next call as they get free, until there is none or one has failed."""
        import anyio

        calls = iter(self._calls(requests))
        errors: list[UserError] = []

        async def work() -> None:
            for call in calls:
                try:
                    completions = await self._ask(client, [requests[i] for i in call], sampling)
                    for answer in zip(call, completions, strict=True):
                        put(answer)
                except UserError as error:
                    errors.append(error)
                if errors:
                    return

        async with self._client() as client, anyio.create_task_group() as workers:
            for _ in range(min(self.concurrency, len(requests))):
                workers.start_soon(work)
        if errors:
            raise errors[0]

    def _calls(self, requests: Sequence[Request]) -> list[list[int]]:
        """Indices of the requests that share a call: one each, or with `grouped` all of a prompt and seed."""
        calls: dict[Any, list[int]] = {}
        for i, request in enumerate(requests):
            calls.setdefault((request.prompt, request.own_seed) if self.config.grouped else i, []).append(i)
        return list(calls.values())

    async def _ask(self, client: AsyncOpenAI, requests: list[Request], sampling: Sampling) -> list[Completion]:
        """One call, for requests of the same prompt and seed."""
        from openai import OpenAIError

        first = requests[0]
        options = {
            "model": self.model,
            "messages": [{"role": "user", "content": first.prompt}],
            "temperature": sampling.temperature,
            "seed": first.seed(sampling) % 2**31,
            **({"n": len(requests)} if len(requests) > 1 else {}),
        }
        try:
            body = await self._post(client, options, sampling.max_tokens)
        except OpenAIError as error:
            raise self._failure(error) from None  # the cause may repeat the key
        try:
            return Reply.read(body).completions(requests, self.chat)
        except NoCompletionError:
            raise self._error(f"the reply is no chat completion ({self._said(body)})") from None
        except UserError as error:
            raise self._error(str(error)) from None

    async def _post(self, client: AsyncOpenAI, options: dict, max_tokens: int) -> str:
        """The reply's body. A server that asks for the limit under its newer name gets it so from then on."""
        from openai import APIStatusError

        limit = self.limit
        try:
            reply = await client.chat.completions.with_raw_response.create(**options, **{limit: max_tokens})
        except APIStatusError as error:
            if limit == "max_completion_tokens" or "max_completion_tokens" not in error.response.text:
                raise
            self.limit = "max_completion_tokens"
            return await self._post(client, options, max_tokens)
        return reply.text

    def _client(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI

        url = urlsplit(address(self.config.url or OPENAI))
        return AsyncOpenAI(
            base_url=url._replace(query="", fragment="").geturl(),
            default_query=dict(parse_qsl(url.query)),
            api_key=_key(self.config) or "none",  # the client wants one, a local server does not
            timeout=self.config.timeout,
            max_retries=self.config.retries,
        )

    def _failure(self, error: OpenAIError) -> UserError:
        """What happened, in the server's words where there are some, and the mend."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        if not isinstance(error, APIConnectionError | APIStatusError):
            return self._error(self._said(error))
        tries = f"after {error.request.headers.get('x-stainless-retry-count', 0)} retries"
        if isinstance(error, APITimeoutError):
            mend = "lower engine.batch_size or raise engine.endpoint.timeout"
            return self._error(f"no answer within {self.config.timeout:g} s, {tries}; {mend}")
        if isinstance(error, APIConnectionError):
            why = self._said(error.__cause__)
            return self._error(f"the connection failed ({why}), {tries}; check engine.endpoint.url and the server")
        key = f"; check the key in the environment variable {self.config.key}"
        mend = {
            401: key,
            403: key,
            404: "; check model.source, and engine.endpoint.url, which ends in /v1",
            429: f", {tries}; lower engine.batch_size",
        }.get(error.status_code, f", {tries}" if error.status_code >= 500 else "")
        said = error.body.get("message", error.body) if isinstance(error.body, dict) else error.body
        return self._error(f"status {error.status_code} ({self._said(said)}){mend}")

    def _said(self, words: object) -> str:
        """A server's words on one line, shortened, without the key: some echo it."""
        text = " ".join(str(words).split())
        for secret in filter(None, [_key(self.config), *held(self.config.url or "")]):
            text = text.replace(secret, "<key>")
        return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"

    def _error(self, what: str) -> UserError:
        return UserError(f"{self.where}: {what}. What was answered is journalled: the same command goes on")


def _key(config: EndpointConfig) -> str:
    """Read anew each time: nothing that is kept, shown or pickled holds it."""
    return os.environ.get(config.key, "").strip()


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def public(url: str | None) -> str:
    """What may be shown and kept of an endpoint's url: no user, password, query or fragment."""
    parts = urlsplit(url or OPENAI)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, path=parts.path.rstrip("/"), query="", fragment="").geturl()
