"""What a chat completions endpoint replies, and the tokens in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tale.chat import Chat
from tale.engines.base import Completion, Request
from tale.errors import UserError

FINISHES = ("stop", "length", "content_filter")


class NoCompletionError(Exception):
    """A body that is no chat completion: a web page, an error, half a document."""


@dataclass(frozen=True)
class Choice:
    """One answer of a reply. `reasoning` is the text that a server's reasoning parser has cut off from it."""

    text: str
    finish: str
    reasoning: str

    @classmethod
    def read(cls, choice: dict) -> Choice:
        message = choice["message"]
        texts = message.get("content") or "", message.get("reasoning_content") or message.get("reasoning") or ""
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("content is no text")
        return cls(texts[0], choice["finish_reason"], texts[1])


@dataclass(frozen=True)
class Usage:
    """Token counts over all choices of a reply. What an endpoint does not report is None or 0."""

    prompt: int | None = None
    answer: int | None = None
    cached: int = 0
    reasoning: int = 0

    @classmethod
    def read(cls, usage: dict) -> Usage:
        return cls(
            usage.get("prompt_tokens"),
            usage.get("completion_tokens"),
            (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
            (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0,
        )


@dataclass(frozen=True)
class Reply:
    """Choices by their index, with the usage of them all."""

    choices: dict[int, Choice]
    usage: Usage

    @classmethod
    def read(cls, body: str) -> Reply:
        """Take what is needed from a JSON body; servers differ in the rest.

        Raises:
            NoCompletionError: it is not there.
        """
        try:
            reply = json.loads(body)
            choices = {choice["index"]: Choice.read(choice) for choice in reply["choices"]}
            usage = Usage.read(reply.get("usage") or {})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise NoCompletionError from error
        if 0 not in choices:
            raise NoCompletionError
        return cls(choices, usage)

    def completions(self, requests: Sequence[Request], chat: Chat | None) -> list[Completion]:
        """One for each sample of a prompt. The first carries the prompt, so that sums are what is billed.

        Raises:
            UserError: a choice is missing or has an unknown end, or how many tokens it has cannot be told.
        """
        for choice in self.choices.values():
            if choice.finish not in FINISHES:
                raise UserError(f"an answer has finish_reason={choice.finish!r}, which is none of {FINISHES}")
        if chat is None:
            return [self._reported()]
        given = [i for i in range(len(requests)) if i in self.choices]
        if len(given) < len(requests):
            raise UserError(f"{len(given)} of {len(requests)} choices came; set engine.endpoint.grouped=false")
        if len(requests) > 1 and self.usage.reasoning:
            raise UserError("the reasoning tokens are of all choices together; set engine.endpoint.grouped=false")
        return [self._counted(i, requests[i].prompt, chat) for i in given]

    def _reported(self) -> Completion:
        choice, usage = self.choices[0], self.usage
        if usage.prompt is None or usage.answer is None:
            raise UserError("the reply has no usage figures; set engine.endpoint.tokenizer")
        return Completion(choice.text, usage.answer, choice.finish, usage.prompt, usage.cached, usage.reasoning)

    def _counted(self, i: int, prompt: str, chat: Chat) -> Completion:
        choice = self.choices[i]
        reasoning = self.usage.reasoning or len(chat.target_ids(choice.reasoning, ended=False))
        tokens = reasoning + len(chat.target_ids(choice.text, ended=choice.finish == "stop"))
        prompt_tokens, cached = (len(chat.prompt_ids(prompt)), self.usage.cached) if i == 0 else (0, 0)
        return Completion(choice.text, tokens, choice.finish, prompt_tokens, cached, reasoning)
