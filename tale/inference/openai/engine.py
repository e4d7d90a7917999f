"""The engine for OpenAI-compatible endpoints, by the official client: OpenAI, vLLM, SGLang, llama.cpp, gateways."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from tale.config.sections import EndpointConfig
from tale.data.chat import Chat
from tale.data.prompts import turns
from tale.errors import UserError
from tale.inference.context_length import too_long
from tale.inference.openai.background import in_background
from tale.inference.openai.calls import CallQueue
from tale.inference.openai.failures import (
    FailureTracker,
    is_content_filter,
    is_rejected,
    is_transient,
    without_unsupported,
)
from tale.inference.openai.response import ChatResponse
from tale.inference.openai.urls import resolve_url, secret_values
from tale.inference.requests import Completion, CompletionStream, Request, RequestSource
from tale.models.base import load_chat
from tale.text import log_warning

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI, OpenAIError

OPENAI = "https://api.openai.com/v1"
SHOWN = 200  # characters of a server's message in an error
CONTINUE = {"add_generation_prompt": False, "continue_final_message": True}  # beyond OpenAI's own options


@dataclass(frozen=True)
class RemoteModel:
    """A model served by an endpoint, identified by name only. Without a `url` OpenAI serves it."""

    name: str
    url: str | None
    tokenizer: str | None
    template: str
    max_model_len: int | None = None
    merge: ClassVar[None] = None

    @property
    def identity(self) -> dict[str, str]:
        """What a run records of the model: its name and the endpoint's URL without user, password and query."""
        return {"name": self.name, "endpoint": redacted_url(self.url)}

    def chat(self) -> Chat | None:
        """The tokenizer that counts tokens, with its chat template; None if the recipe names none.

        Raises:
            UserError: it cannot be read.
        """
        if self.tokenizer is None:
            return None
        return load_chat(self.tokenizer, self.template, "engine.endpoint.tokenizer")


class EndpointEngine:
    """Chat completions of `model`, with at most `max_concurrency` calls in flight.

    Tokens are those of the endpoint's usage, or with `chat` counted by its tokenizer: the prompt in its template, and
    the answer's text, its end token if it ended, and its reasoning (as reported, else as in the response). A call has
    a temperature and a seed, unless the server refuses them; its other defaults (top-p, penalties) are configured at
    the server. A question whose call fails is left unanswered, unless the server is at fault, which ends the run
    (`FailureTracker`).

    Raises:
        UserError: the client is not installed, the URL is invalid, the key is missing, or `use_n` lacks a tokenizer.
    """

    def __init__(self, model: str, config: EndpointConfig, chat: Chat | None = None):
        if importlib.util.find_spec("openai") is None:
            raise UserError("engine.kind=openai: the client is not installed; pip install -e '.[openai]' installs it")
        if not _is_address(config.base_url or OPENAI):
            raise UserError("engine.endpoint.base_url: must begin with http:// or https://, name a host and end in /v1")
        key = _key(config)
        if config.base_url is None and not key:
            raise UserError(
                f"engine.endpoint.api_key_env: OpenAI needs a key in the environment variable {config.api_key_env}"
            )
        if not (key.isascii() and key.isprintable()):
            raise UserError(
                f"engine.endpoint.api_key_env: the value of {config.api_key_env} is not a key: it has characters that "
                "keys do not have"
            )
        if config.use_n and chat is None:
            raise UserError("engine.endpoint.use_n: usage is for all choices together; set engine.endpoint.tokenizer")
        self.model = model
        self.config = config
        self.concurrency = config.max_concurrency
        self.chat = chat
        self.max_model_len = config.max_model_len
        self.where = redacted_url(config.base_url)
        self.tokenizer = config.tokenizer or f"usage of {model} at {self.where}"
        # All servers know max_tokens, and several ignore its successor; OpenAI's newer models refuse it (`_post`).
        self.limit = "max_completion_tokens" if config.base_url is None else "max_tokens"
        self.forbidden: set[str] = set()  # options that this server refuses
        self.failures = FailureTracker()

    def generate(self, more: RequestSource) -> CompletionStream:
        """Yield `(number, completion)` as each call ends; calls run while the consumer is busy.

        Raises:
            UserError: the server is unusable; no further call is made, and the answers of all calls in flight have been
                yielded before. Or a request needs what an endpoint does not support.
        """
        answers: SimpleQueue[tuple[int, Completion] | None] = SimpleQueue()
        calls = CallQueue(lambda: self.failures.should_stop)
        asked = self._add(calls, more(), 0)
        silent = done = 0
        with in_background(lambda: self._ask_all(calls, answers.put), lambda: answers.put(None)) as ended:
            while done < asked and (answer := answers.get()):
                done += 1
                silent += answer[1].reasoning_only
                yield answer
                asked = self._add(calls, more(), asked)
            calls.close()
            ended.result()
        if silent:
            log_warning(
                f"{self.where}: {silent} of {asked} answers consist of reasoning only and count as no answer; "
                "raise sampling.max_tokens, or start the server without its reasoning parser"
            )

    def _add(self, calls: CallQueue, requests: Sequence[Request], asked: int) -> int:
        """Add the calls of requests that are numbered from `asked`; the next number.

        One call per request, or with `use_n` one call for all samples of a request.
        """
        groups: dict[Any, list[tuple[int, Request]]] = {}
        for i, request in enumerate(requests, asked):
            check_request(self.config, request)
            groups.setdefault(replace(request, sample=0) if self.config.use_n else i, []).append((i, request))
        calls.add(groups.values())
        return asked + len(requests)

    async def _ask_all(self, calls: CallQueue, put: Callable[[tuple[int, Completion]], None]) -> None:
        """`concurrency` workers each take the next call when free, until there is none or one has failed."""
        import anyio

        async def work() -> None:
            while call := await calls.next():
                try:
                    completions = await self._ask(client, [request for _, request in call])
                except UserError as error:
                    calls.errors.append(error)
                else:
                    for (number, _), completion in zip(call, completions, strict=True):
                        put((number, completion))
                calls.done()

        async with self._client() as client, anyio.create_task_group() as workers:
            for _ in range(self.concurrency):
                workers.start_soon(work)
        if calls.errors:
            raise calls.errors[0]
        if verdict := self.failures.verdict:
            raise self._error(verdict)

    async def _ask(self, client: AsyncOpenAI, requests: list[Request]) -> list[Completion]:
        """Make one call, for all samples of a request."""
        from openai import OpenAIError

        first = requests[0]
        limit = first.sampling.max_tokens
        options = {
            "model": self.model,
            "messages": turns(first.messages),
            "temperature": first.sampling.temperature,
            "seed": first.draw_seed % 2**31,
            self.limit: limit,
            **({"n": len(requests)} if len(requests) > 1 else {}),
            **({"stop": list(first.stop)} if first.stop else {}),
            **({"logprobs": True} if first.logprobs else {}),
            **({"extra_body": CONTINUE} if first.continues else {}),
        }
        if self.chat and (why := too_long(len(self.chat.conversation_ids(first.messages)), limit, self.max_model_len)):
            return [Completion.failed(why)] * len(requests)
        failed: OpenAIError | None = None
        try:
            body = await self._post(client, {name: of for name, of in options.items() if name not in self.forbidden})
            completions = ChatResponse.read(body).completions(requests, self.chat)
        except OpenAIError as error:
            if not (is_content_filter(error) or is_rejected(error) or is_transient(error)):
                raise self._error(self._failure(error)) from None  # the cause may repeat the key
            failed, lacking = error, Completion.failed(self._failure(error))
            completions = [Completion("", 0, "content_filter", 0) if is_content_filter(error) else lacking] * len(
                requests
            )
        except UserError as error:
            raise self._error(self._said(error)) from None
        completions = [replace(c, error=self._said(c.error)) if c.error else c for c in completions]
        self.failures.note(first.prompt, completions, failed is not None and is_transient(failed))
        return completions

    async def _post(self, client: AsyncOpenAI, options: dict) -> bytes:
        """The response's body. Options that the server refuses are left out or renamed, in later calls too."""
        from openai import APIStatusError

        asked = options
        while True:
            try:
                reply = await client.chat.completions.with_raw_response.create(**asked)
            except APIStatusError as error:
                other = without_unsupported(asked, error)
                if other is None:
                    raise
                asked = other
            else:
                self._learn(options.keys() - asked.keys())
                return reply.content

    def _learn(self, unwanted: set[str]) -> None:
        if "max_tokens" in unwanted:
            self.limit = "max_completion_tokens"
        if new := unwanted - self.forbidden - {"max_tokens"}:
            self.forbidden |= new
            log_warning(f"{self.where}: refuses {' and '.join(sorted(new))}; left out, the server's default applies")

    def _client(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI

        from tale.inference.openai.client import BoundedClient

        url = urlsplit(resolve_url(self.config.base_url or OPENAI))
        return AsyncOpenAI(
            base_url=url._replace(query="", fragment="").geturl(),
            default_query=dict(parse_qsl(url.query)),
            api_key=_key(self.config) or "none",  # the client requires one, a local server does not
            timeout=self.config.timeout,
            max_retries=self.config.max_retries,
            http_client=BoundedClient(self.config.timeout),
        )

    def _failure(self, error: OpenAIError) -> str:
        """The error, with the server's message if there is one, and the remedy."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        from tale.inference.openai.client import UnusableResponseError

        if not isinstance(error, APIConnectionError | APIStatusError):
            return self._said(error)
        tries = f"after {error.request.headers.get('x-stainless-retry-count', 0)} retries"
        if isinstance(error, APITimeoutError):
            remedy = "lower engine.endpoint.max_concurrency or raise engine.endpoint.timeout"
            return f"no answer within {self.config.timeout:g} s, {tries}; {remedy}"
        if isinstance(error.__cause__, UnusableResponseError):
            return f"{self._said(error.__cause__)}, {tries}"
        if isinstance(error, APIConnectionError):
            why = self._said(error.__cause__)
            return f"the connection failed ({why}), {tries}; check engine.endpoint.base_url and the server"
        if onward := error.response.headers.get("location"):
            onward = self._said(redacted_url(onward))
            return f"it redirects to {onward}, to which no prompts are sent; should engine.endpoint.base_url be that?"
        key = f"; check the key in the environment variable {self.config.api_key_env}"
        remedy = {
            401: key,
            403: key,
            404: "; check model.name_or_path, and engine.endpoint.base_url, which ends in /v1",
            429: f", {tries}; lower engine.endpoint.max_concurrency",
        }.get(error.status_code, f", {tries}" if error.status_code >= 500 else "")
        return f"{self._status(error)}{remedy}"

    def _status(self, error: APIStatusError) -> str:
        said = error.body.get("message", error.body) if isinstance(error.body, dict) else error.body
        return f"status {error.status_code} ({self._said(said)})"

    def _said(self, words: object) -> str:
        """A server's message on one line, shortened, without the key, which some servers echo."""
        text = " ".join(str(words).split())
        for secret in secret_values(self.config):
            text = text.replace(secret, "<key>")
        return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"

    def _error(self, what: str) -> UserError:
        return UserError(f"{self.where}: {what}. All answers so far are in the journal: the same command resumes")


def check_request(config: EndpointConfig, request: Request) -> None:
    """Refuse a request that no call can express.

    Raises:
        UserError: it continues an assistant turn, and the server is not said to; or it wants log-probabilities at the
            sampling temperature.
    """
    if request.processed_logprobs:
        raise UserError("engine.kind=openai: an endpoint's log-probabilities are at temperature 1; use another engine")
    if request.continues and not config.continue_final_message:
        raise UserError(
            "engine.kind=openai: an endpoint cannot continue an assistant turn; set "
            "engine.endpoint.continue_final_message=true if the server can (vLLM, SGLang), or use another engine"
        )


def _key(config: EndpointConfig) -> str:
    """Read each time from the environment, so that no object holds the key."""
    return os.environ.get(config.api_key_env, "").strip()


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def redacted_url(url: str | None) -> str:
    """An endpoint's URL without user, password, query and fragment, which may be shown and saved."""
    try:
        parts = urlsplit(url or OPENAI)
    except ValueError:  # sent by a server
        return "an invalid URL"
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, path=parts.path.rstrip("/"), query="", fragment="").geturl()
