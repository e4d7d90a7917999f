"""From a prompt to token ids and back: the only place where a chat template is applied.

Search, training and evaluation all use `Chat`, so a prompt has the same ids in training and in evaluation.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tale.data.prompts import Message, turns
from tale.errors import UserError

# Some templates print a date: Llama 3.1's takes `date_string`, others call `strftime_now`. It is fixed, so that a
# prompt has the same ids every day.
TEMPLATE_DATE = datetime(2024, 7, 26)
# Texts to try a template with: words that no template writes itself, without white space that it could strip.
USER, ANSWER = Message("user", "question?"), Message("assistant", "answer!")
# A text on which tokenizers with the same vocabulary may differ.
PROBE = "In 2024 she'd 1,234.5  apples\n\n\tGröße: 问题"


class Chat:
    """A tokenizer with its chat template (`template="chat"`), or with the bare prompt (`"plain"`).

    The text that the template writes between prompt and answer (`lead`) and after an answer is found by rendering:
    template(prompt + answer) minus template(prompt). `end_id` is the first token after an answer, special or plain, and
    `gap` the white space before it; if the template writes none, it is the tokenizer's end-of-sequence token.

    Raises:
        UserError: `template="chat"`, and there is no chat template, or prompt and answer cannot be separated in it; or
            no token ends an answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str = "chat"):
        if template == "chat" and not tokenizer.chat_template:
            raise UserError("model.template: this model has no chat template; set model.template=plain for bare text")
        self.tokenizer = tokenizer
        self.template = template
        self.lead, behind = self._around() if template == "chat" else ("", "")
        self.gap, self.end_id = self._end(behind)
        # An answer is encoded after this text, as its first token may depend on it; bare prompts end in "\n".
        self.opening = self._render(USER) if template == "chat" else "\n"
        self.opening_ids = self._encoded(self.opening)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of vocabulary and template: if equal, ids have the same text, and prompts the same ids."""
        template = self.tokenizer.chat_template if self.template == "chat" else None
        known = [self.tokenizer.get_vocab(), template, self.prompt_ids(PROBE), self.end_id]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]

    def prompt_ids(self, user: str) -> list[int]:
        """Ids of the user turn up to the start of the assistant's turn, with exactly the BOS that the model expects.

        Raises:
            UserError: the template rejects this text.
        """
        return self.conversation_ids([Message("user", user)])

    def conversation_ids(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation up to the start of the assistant's turn, or to the end of its open turn.

        The assistant's messages at the end are the parts of its open turn. A part with ids has these ids. The first
        part, if it is text, is encoded as training encodes an answer: after the prompt and the template's lead. Later
        text is encoded alone, whatever ids precede it.

        Raises:
            UserError: the template rejects these turns or this text.
        """
        *before, last = messages
        parts: deque[Message] = deque()
        while last.role == "assistant":
            parts.appendleft(last)
            *before, last = before
        if self.template == "chat":
            # The template itself writes BOS if the model has one: the tokenizer must not add a second.
            ids = self._encoded(self._render(*before, last))
        elif before:
            raise UserError("model.template=plain: bare text is one user turn; set model.template=chat for more")
        else:
            ids = self.tokenizer(last.content).input_ids
        for number, part in enumerate(parts):
            text = part.content if number else self._led(part.content)
            ids += self._behind(text) if part.ids is None else part.ids
        return ids

    def target_ids(self, answer: str, ended: bool = True) -> list[int]:
        """Ids of an answer to train on, as the template writes it after the prompt, up to its end token.

        The answer's white space is kept. `ended=False`, for a cut-off answer, leaves out the end token.
        """
        text = self._led(answer)
        return [*self._behind(text.removesuffix(self.gap) + self.gap), self.end_id] if ended else self._behind(text)

    def count(self, answer: str, ended: bool = True) -> int:
        """Tokens of an answer that another program generated, its end token included if it ended."""
        return len(self._behind(answer)) + ended

    def stop_token_ids(self, eos: int | list[int] | None) -> list[int]:
        """All ids that end an answer: the template's end token, and the checkpoint's `eos_token_id`."""
        return sorted({self.end_id, *([eos] if isinstance(eos, int) else eos or ())})

    def decode(self, ids: Sequence[int], stop_token_ids: Collection[int] = ()) -> str:
        """Text of generated ids without a final end token (or one of `stop_token_ids`); other special tokens stay."""
        ended = len(ids) > 0 and ids[-1] in (self.end_id, *stop_token_ids)
        return str(self.tokenizer.decode(list(ids[:-1] if ended else ids), skip_special_tokens=False))

    def _encoded(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def _behind(self, text: str) -> list[int]:
        """Ids of an assistant's text after a prompt."""
        ids, before = self._encoded(self.opening + text), len(self.opening_ids)
        # A first line break may merge with the prompt's last one, but generation starts after the prompt's own ids.
        return ids[before:] if ids[:before] == self.opening_ids else self._encoded(text)

    def _led(self, answer: str) -> str:
        """The answer after the template's lead (a space, Qwen3's empty `<think>`), unless it begins with one itself."""
        with suppress(UserError):
            whole = self._render(USER, Message("assistant", answer))
            if self.lead and whole.startswith(self.opening + self.lead + answer.strip()):
                return self.lead + answer.lstrip()
        return answer

    def _render(self, *messages: Message, opened: bool = True) -> str:
        """A conversation's text; after a user's turn with the start of the assistant's if it is to be `opened`."""
        try:
            text = self.tokenizer.apply_chat_template(
                turns(messages),
                tokenize=False,
                add_generation_prompt=opened and messages[-1].role != "assistant",
                date_string=TEMPLATE_DATE.strftime("%d %b %Y"),
                strftime_now=TEMPLATE_DATE.strftime,
            )
        except Exception as error:  # a template is a program and may raise anything
            raise _refused(f"raises {type(error).__name__} ({str(error)[:200]})") from error
        return str(text)

    def _around(self) -> tuple[str, str]:
        """What the template writes between prompt and answer, and after the answer."""
        prompt, whole = self._render(USER), self._render(USER, ANSWER)
        if USER.content not in prompt:
            raise _refused("leaves out the user's text; some expect a message's content as a list of parts")
        if not whole.startswith(prompt):
            raise _refused(f"ends a prompt in {prompt[-20:]!r}, but does not write that before an answer")
        lead, found, behind = whole[len(prompt) :].partition(ANSWER.content)
        if not found:
            raise _refused("leaves out the assistant's text")
        if lead.strip() and prompt == self._render(USER, opened=False):
            raise _refused(f"ignores add_generation_prompt: it writes {lead!r} before an answer, but in no prompt")
        return lead, behind

    def _end(self, behind: str) -> tuple[str, int]:
        """The white space that comes before the first token of `behind` that could end an answer, and that token."""
        added = self.tokenizer.added_tokens_decoder
        for token in self._encoded(behind):
            text = added[token].content if token in added else ""
            if text.strip(" \t\n\r▁"):  # some tokenizers have added tokens of white space only
                gap, _, _ = behind.partition(text)
                if gap.strip():
                    break
                return gap, token
        if behind.strip():
            raise _refused(
                f"ends an answer with the text {behind.strip()[:40]!r}, which is not an added token of the tokenizer: "
                "generation would not stop there"
            )
        if self.tokenizer.eos_token_id is None:
            raise UserError("model.name_or_path: the tokenizer has no end-of-sequence token, so answers never end")
        return "", self.tokenizer.eos_token_id


def read_chat(source: Path | str, template: str, key: str) -> Chat:
    """The tokenizer of a folder or hub id, which the recipe names under `key`.

    Raises:
        UserError: it cannot be read, or its chat template cannot be used.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{key}: no tokenizer can be read in {source} ({reason})") from error
    return Chat(tokenizer, template)


def _refused(what: str) -> UserError:
    return UserError(
        f"model.template=chat: the tokenizer's chat template {' '.join(what.split())}. Give it another one "
        "(chat_template.jinja), or set model.template=plain to send bare text"
    )
