"""The response of a chat completions endpoint, and its token counts."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tale.errors import UserError
from tale.inference.requests import Completion, Request

if TYPE_CHECKING:
    from tale.data.chat import Chat

# The servers' finish reasons, in lower case and with "_" for "-": OpenAI; Together, TGI, watsonx, Cohere, Anthropic and
# Gemini behind gateways; Mistral.
ENDS = {
    "stop": "stop eos eos_token end_turn end_of_turn end_of_message end_of_text stop_sequence stop_token complete "
    "completed",
    "length": "length max_tokens max_length max_output_tokens model_length token_limit",
    "content_filter": "content_filter content_filtered safety",
}
FINISHES = {word: finish for finish, words in ENDS.items() for word in words.split()}
MOST_TOKENS = 10**9  # more than any context length
HALF_CHARACTERS = re.compile("[\ud800-\udfff]")


class NoCompletionError(Exception):
    """A body that is not a chat completion: a web page, a truncated document, an empty list of choices."""


@dataclass(frozen=True)
class Choice:
    """One answer of a response. `reasoning` is the text that a server's reasoning parser separated from it."""

    text: str
    finish: object
    reasoning: str
    logprobs: object = None  # unparsed: some servers send them unrequested, in their own formats
    stopped: Sequence[object] = ()  # what ended it, by `stop_reason` (vLLM) or `matched_stop` (SGLang), if it is there

    @classmethod
    def read(cls, choice: dict) -> Choice:
        message = choice["message"]
        text, thought = _parts(message.get("content") or message.get("refusal") or "")
        beside, _ = _parts(message.get("reasoning_content") or message.get("reasoning") or "")
        stopped = [choice[name] for name in ("stop_reason", "matched_stop") if name in choice]
        return cls(text, choice.get("finish_reason"), beside or thought, choice.get("logprobs"), stopped)

    def stop_string(self, stop: Sequence[str]) -> str | None:
        """The one of `stop` that ended it; None if an end token did.

        Raises:
            UserError: the server does not say.
        """
        if not self.stopped:
            raise UserError(
                "the reply does not say whether a stop string ended it (stop_reason or matched_stop), which this "
                "method needs; use another server"
            )
        return next((string for string in stop if string in self.stopped), None)

    @property
    def scores(self) -> tuple[float, ...]:
        """The log-probability of each token.

        Raises:
            UserError: there are none, or not in OpenAI's format.
        """
        try:
            return tuple(float(token["logprob"]) for token in self.logprobs["content"])  # type: ignore[index]
        except (TypeError, KeyError, ValueError) as error:
            raise UserError("the reply lacks log-probabilities, which this method needs; use another server") from error


@dataclass(frozen=True)
class Usage:
    """Token counts over all choices of a response, unparsed; None if not reported."""

    prompt: object = None
    answer: object = None
    cached: object = None
    reasoning: object = None

    @classmethod
    def read(cls, usage: dict) -> Usage:
        return cls(
            usage.get("prompt_tokens"),
            usage.get("completion_tokens"),
            (usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
            (usage.get("completion_tokens_details") or {}).get("reasoning_tokens"),
        )


@dataclass(frozen=True)
class ChatResponse:
    """Choices by index, with the usage of all of them."""

    choices: dict[int, Choice]
    usage: Usage

    @classmethod
    def read(cls, body: bytes) -> ChatResponse:
        """Parse the needed fields of a JSON body; servers differ in the others.

        Raises:
            NoCompletionError: one of them is missing.
        """
        try:
            reply = json.loads(body)
            choices = {_index(choice, i): Choice.read(choice) for i, choice in enumerate(reply["choices"])}
            usage = Usage.read(reply.get("usage") or {})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise NoCompletionError from error
        if 0 not in choices:
            raise NoCompletionError
        return cls(choices, usage)

    def completions(self, requests: Sequence[Request], chat: Chat | None) -> list[Completion]:
        """One completion per sample of a request. The first has the prompt's tokens, so that sums are what is billed.

        A choice with an unknown finish reason becomes an error.

        Raises:
            UserError: a choice is missing, its tokens cannot be counted, or what was requested is missing (`Choice`).
        """
        made = self._completions(requests, requests[0].sampling.max_tokens, chat)
        if stop := requests[0].stop:
            ended = {i: self.choices[i].stop_string(stop) for i, each in enumerate(made) if each.finish == "stop"}
            made = [replace(completion, stop_string=ended.get(i)) for i, completion in enumerate(made)]
        if requests[0].logprobs:
            made = [replace(completion, logprobs=self.choices[i].scores) for i, completion in enumerate(made)]
        return made

    def _completions(self, requests: Sequence[Request], limit: int, chat: Chat | None) -> list[Completion]:
        if chat is None:
            return [self._reported(limit)]
        given = [i for i in range(len(requests)) if i in self.choices]
        if len(given) < len(requests):
            raise UserError(f"{len(given)} of {len(requests)} choices came; set engine.endpoint.use_n=false")
        if len(requests) > 1 and _count(self.usage.reasoning):
            raise UserError("reasoning tokens are for all choices together; set engine.endpoint.use_n=false")
        return [self._counted(i, requests[i], limit, chat) for i in given]

    def _reported(self, limit: int) -> Completion:
        """A completion with the endpoint's token counts; cached and reasoning tokens may be missing."""
        choice = self.choices[0]
        if self.usage.prompt is None or self.usage.answer is None:
            raise UserError("the reply has no usage; set engine.endpoint.tokenizer")
        counts = {name: _count(value) for name, value in vars(self.usage).items() if value is not None}
        texts = {"prompt": True, "answer": bool(choice.text or choice.reasoning)}
        for name, count in counts.items():
            if count is None or (not count and texts.get(name)):
                what = f"{name} of {getattr(self.usage, name)!r} tokens"
                raise UserError(f"the usage is invalid, set engine.endpoint.tokenizer: {what}")
        prompt, answer, cached, reasoning = (
            counts.get(name) or 0 for name in ("prompt", "answer", "cached", "reasoning")
        )
        if cached > prompt or reasoning > answer:
            what = f"{cached} cached of {prompt}, {reasoning} reasoning of {answer}"
            raise UserError(f"the usage is invalid, set engine.endpoint.tokenizer: {what}")
        return _completion(choice, _finish(choice, answer, limit), answer, prompt, cached, reasoning)

    def _counted(self, i: int, request: Request, limit: int, chat: Chat) -> Completion:
        """A completion with tokens counted by the tokenizer; cached and reasoning tokens are the endpoint's."""
        choice = self.choices[i]
        reasoning = _count(self.usage.reasoning) or chat.count(choice.reasoning, ended=False)
        finish = _finish(choice, reasoning + chat.count(choice.text, ended=False), limit)
        tokens = reasoning + chat.count(choice.text, ended=finish == "stop")
        prompt_tokens = len(chat.conversation_ids(request.messages)) if i == 0 else 0
        cached = min(_count(self.usage.cached) or 0, prompt_tokens)
        return _completion(choice, finish, tokens, prompt_tokens, cached, reasoning)


def status_inside(body: bytes) -> int | None:
    """The status that an error in place of a completion names, 500 if it names none; None without an error."""
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(reply, dict) or reply.get("choices"):
        return None
    error = reply.get("error") or (reply if reply.get("object") == "error" else None)
    if not error:
        return None
    code = str(error.get("code") if isinstance(error, dict) else "")
    return int(code) if re.fullmatch("[45][0-9][0-9]", code) else 500


def _completion(choice: Choice, finish: Any, tokens: int, prompt: int, cached: int, reasoning: int) -> Completion:
    """A completion; without text, all tokens are reasoning."""
    if finish is None:
        return Completion.failed(f"unknown finish_reason {choice.finish!r}")
    reasoning = tokens if choice.reasoning and not choice.text else reasoning
    return Completion(choice.text, tokens, finish, prompt, cached, reasoning)


def _finish(choice: Choice, tokens: int, limit: int) -> Any:
    """The finish reason, by the answer's length if the server sends none; None if unknown."""
    if choice.finish in (None, ""):
        return "length" if tokens >= limit else "stop"
    return FINISHES.get(str(choice.finish).lower().replace("-", "_"))


def _index(choice: dict, position: int) -> int:
    index = choice.get("index")
    return index if type(index) is int else position


def _count(value: object) -> int | None:
    """A number of tokens; None if it is not one."""
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None


def _parts(content: Any) -> tuple[str, str]:
    """Text and reasoning of a content, which is a text or a list of parts. Lone surrogates are replaced."""
    if isinstance(content, str):
        return HALF_CHARACTERS.sub("\ufffd", content), ""
    text = reasoning = ""
    for part in content:
        kind = part["type"]
        said, thought = _parts(part.get(kind) or part["text"])
        if kind in ("thinking", "reasoning"):
            said, thought = "", said + thought
        text, reasoning = text + said, reasoning + thought
    return text, reasoning
