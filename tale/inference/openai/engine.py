"""Any OpenAI-compatible endpoint, asked through the official client: OpenAI, vLLM, SGLang, llama.cpp, a gateway."""

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
from tale.errors import UserError
from tale.inference.openai.address import address, held
from tale.inference.openai.background import in_background
from tale.inference.openai.calls import Calls
from tale.inference.openai.refusals import Unanswered, asked_otherwise, filtered, passing, refused
from tale.inference.openai.reply import Reply
from tale.inference.requests import Answers, Completion, More, Request
from tale.inference.room import too_long
from tale.models.base import tokenizer_alone
from tale.text import warn

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI, OpenAIError

OPENAI = "https://api.openai.com/v1"
SHOWN = 200  # characters of a server's own words in an error


@dataclass(frozen=True)
class RemoteModel:
    """A model behind an endpoint: known by name, its weights never seen. Without a `url` OpenAI serves it."""

    name: str
    url: str | None
    tokenizer: str | None
    template: str
    context: int | None = None
    merge: ClassVar[None] = None

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
    """Chat completions of `model`, with at most `max_concurrency` calls under way.

    Tokens are what the endpoint's usage says, or with `chat` what its tokenizer counts: the prompt in its template,
    and the answer's text, its end token if it ended, and its reasoning (reported, or else in the reply). An endpoint
    gets a temperature and a seed, unless it forbids them; what else its server applies by default (top-p, penalties) is
    set there. A question whose call fails is left unanswered, unless that is the server's fault, which ends the run
    (`Unanswered`).

    Raises:
        UserError: the client is not installed, the url is none, the key is missing, or `use_n` lacks a tokenizer.
    """

    def __init__(self, model: str, config: EndpointConfig, chat: Chat | None = None):
        if importlib.util.find_spec("openai") is None:
            raise UserError("engine.kind=openai: the client is not installed; pip install -e '.[openai]' brings it")
        if not _is_address(config.base_url or OPENAI):
            raise UserError(
                "engine.endpoint.base_url: it begins with http:// or https://, names a host and ends in /v1"
            )
        key = _key(config)
        if config.base_url is None and not key:
            raise UserError(
                f"engine.endpoint.api_key_env: OpenAI wants a key in the environment variable {config.api_key_env}"
            )
        if not (key.isascii() and key.isprintable()):
            raise UserError(
                f"engine.endpoint.api_key_env: what {config.api_key_env} holds is no key: it has characters that none "
                "has"
            )
        if config.use_n and chat is None:
            raise UserError("engine.endpoint.use_n: usage is of all choices together; set engine.endpoint.tokenizer")
        self.model = model
        self.config = config
        self.concurrency = config.max_concurrency
        self.chat = chat
        self.context = config.max_model_len
        self.where = public(config.base_url)
        self.tokenizer = config.tokenizer or f"usage of {model} at {self.where}"
        # Every server knows max_tokens, and several ignore its successor; OpenAI's newer models refuse it (`_post`).
        self.limit = "max_completion_tokens" if config.base_url is None else "max_tokens"
        self.forbidden: set[str] = set()  # options that this server wants left out
        self.unanswered = Unanswered()

    def generate(self, more: More) -> Answers:
        """Yield `(number, completion)` as soon as its call is done; calls go on while the consumer is busy.

        Raises:
            UserError: the server cannot be used, or no longer; by then no further call has been made, and every answer
                in flight has been waited for and yielded. Or a request wants what an endpoint cannot do.
        """
        answers: SimpleQueue[tuple[int, Completion] | None] = SimpleQueue()
        calls = Calls(lambda: self.unanswered.hopeless)
        asked = self._add(calls, more(), 0)
        silent = done = 0
        with in_background(lambda: self._ask_all(calls, answers.put), lambda: answers.put(None)) as ended:
            while done < asked and (answer := answers.get()):
                done += 1
                silent += answer[1].reasoned_alone
                yield answer
                asked = self._add(calls, more(), asked)
            calls.close()
            ended.result()
        if silent:
            warn(
                f"{self.where}: {silent} of {asked} answers stand in the reasoning alone and count as none; "
                "raise sampling.max_tokens, or start the server without its reasoning parser"
            )

    def _add(self, calls: Calls, requests: Sequence[Request], asked: int) -> int:
        """Add the calls of requests that are numbered from `asked`; the number behind the last.

        A request has a call of its own, or with `grouped` all samples of it have one.
        """
        groups: dict[Any, list[tuple[int, Request]]] = {}
        for i, request in enumerate(requests, asked):
            if request.continues:
                raise UserError("engine.kind=openai: an endpoint cannot continue an assistant's turn")
            groups.setdefault(replace(request, sample=0) if self.config.use_n else i, []).append((i, request))
        calls.add(groups.values())
        return asked + len(requests)

    async def _ask_all(self, calls: Calls, put: Callable[[tuple[int, Completion]], None]) -> None:
        """`concurrency` workers take the next call as they get free, until there is none or one has failed."""
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
        if verdict := self.unanswered.verdict:
            raise self._error(verdict)

    async def _ask(self, client: AsyncOpenAI, requests: list[Request]) -> list[Completion]:
        """One call, for samples of the same request."""
        from openai import OpenAIError

        first = requests[0]
        limit = first.sampling.max_tokens
        options = {
            "model": self.model,
            "messages": list(map(vars, first.messages)),
            "temperature": first.sampling.temperature,
            "seed": first.draw_seed % 2**31,
            self.limit: limit,
            **({"n": len(requests)} if len(requests) > 1 else {}),
            **({"stop": list(first.stop)} if first.stop else {}),
            **({"logprobs": True} if first.logprobs else {}),
        }
        if self.chat and (why := too_long(len(self.chat.conversation_ids(first.messages)), limit, self.context)):
            return [Completion.refused(why)] * len(requests)
        failed: OpenAIError | None = None
        try:
            body = await self._post(client, {name: of for name, of in options.items() if name not in self.forbidden})
            completions = Reply.read(body).completions(requests, self.chat)
        except OpenAIError as error:
            if not (filtered(error) or refused(error) or passing(error)):
                raise self._error(self._failure(error)) from None  # the cause may repeat the key
            failed, lacking = error, Completion.refused(self._failure(error))
            completions = [Completion("", 0, "content_filter", 0) if filtered(error) else lacking] * len(requests)
        except UserError as error:
            raise self._error(self._said(error)) from None
        completions = [replace(c, error=self._said(c.error)) if c.error else c for c in completions]
        self.unanswered.note(first.prompt, completions, failed is not None and passing(failed))
        return completions

    async def _post(self, client: AsyncOpenAI, options: dict) -> bytes:
        """The reply's body. A server that wants to be asked otherwise is asked so from then on, where that helps."""
        from openai import APIStatusError

        asked = options
        while True:
            try:
                reply = await client.chat.completions.with_raw_response.create(**asked)
            except APIStatusError as error:
                other = asked_otherwise(asked, error)
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
            warn(f"{self.where}: refuses {' and '.join(sorted(new))}, which is left out: the server's default applies")

    def _client(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI

        from tale.inference.openai.client import BoundedClient

        url = urlsplit(address(self.config.base_url or OPENAI))
        return AsyncOpenAI(
            base_url=url._replace(query="", fragment="").geturl(),
            default_query=dict(parse_qsl(url.query)),
            api_key=_key(self.config) or "none",  # the client wants one, a local server does not
            timeout=self.config.timeout,
            max_retries=self.config.max_retries,
            http_client=BoundedClient(self.config.timeout),
        )

    def _failure(self, error: OpenAIError) -> str:
        """What happened, in the server's words where there are some, and the remedy."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        from tale.inference.openai.client import UselessReplyError

        if not isinstance(error, APIConnectionError | APIStatusError):
            return self._said(error)
        tries = f"after {error.request.headers.get('x-stainless-retry-count', 0)} retries"
        if isinstance(error, APITimeoutError):
            mend = "lower engine.endpoint.max_concurrency or raise engine.endpoint.timeout"
            return f"no answer within {self.config.timeout:g} s, {tries}; {mend}"
        if isinstance(error.__cause__, UselessReplyError):
            return f"{self._said(error.__cause__)}, {tries}"
        if isinstance(error, APIConnectionError):
            why = self._said(error.__cause__)
            return f"the connection failed ({why}), {tries}; check engine.endpoint.base_url and the server"
        if onward := error.response.headers.get("location"):
            onward = self._said(public(onward))
            return f"it redirects to {onward}, which gets no prompts; is that what engine.endpoint.base_url should be?"
        key = f"; check the key in the environment variable {self.config.api_key_env}"
        mend = {
            401: key,
            403: key,
            404: "; check model.name_or_path, and engine.endpoint.base_url, which ends in /v1",
            429: f", {tries}; lower engine.endpoint.max_concurrency",
        }.get(error.status_code, f", {tries}" if error.status_code >= 500 else "")
        return f"{self._status(error)}{mend}"

    def _status(self, error: APIStatusError) -> str:
        said = error.body.get("message", error.body) if isinstance(error.body, dict) else error.body
        return f"status {error.status_code} ({self._said(said)})"

    def _said(self, words: object) -> str:
        """A server's words on one line, shortened, without the key: some echo it."""
        text = " ".join(str(words).split())
        for secret in held(self.config):
            text = text.replace(secret, "<key>")
        return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"

    def _error(self, what: str) -> UserError:
        return UserError(f"{self.where}: {what}. What was answered is journalled: the same command goes on")


def _key(config: EndpointConfig) -> str:
    """Read anew each time: nothing that is kept, shown or pickled holds it."""
    return os.environ.get(config.api_key_env, "").strip()


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def public(url: str | None) -> str:
    """What may be shown and kept of an endpoint's url: no user, password, query or fragment."""
    try:
        parts = urlsplit(url or OPENAI)
    except ValueError:  # a server's own
        return "an invalid url"
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, path=parts.path.rstrip("/"), query="", fragment="").geturl()
