"""From a prompt to token ids and back: the one place where a chat template is applied.

Search, training and evaluation all go through `Chat`, so a training prompt and an evaluation prompt are the same ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tale.data.prompts import Message
from tale.errors import UserError

# Some templates print a date: Llama 3.1's takes `date_string`, others call `strftime_now`. Fixed, so that a prompt is
# the same ids on every day.
TEMPLATE_DATE = datetime(2024, 7, 26)
# What a template is tried with: words that no template writes by itself, without white space that it could trim.
USER, ANSWER = Message("user", "question?"), Message("assistant", "answer!")
# Text on which tokenizers of the same vocabulary may still differ.
PROBE = "In 2024 she'd 1,234.5  apples\n\n\tGröße: 问题"


class Chat:
    """A tokenizer with its chat template (`template="chat"`), or with the bare prompt (`"plain"`).

    What the template writes between prompt and answer (`lead`) and behind an answer is found by rendering:
    template(prompt + answer) minus template(prompt). `end_id` is the first token behind an answer, special or plain,
    and `gap` the white space before it; where the template writes none, the tokenizer's own end-of-sequence token.

    Raises:
        UserError: `template="chat"`, and there is no chat template or none that prompt and answer can be told apart in;
            or no token ends an answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str = "chat"):
        if template == "chat" and not tokenizer.chat_template:
            raise UserError(
                "model.template: this model has no chat template; set model.template=plain to send bare text"
            )
        self.tokenizer = tokenizer
        self.template = template
        self.lead, behind = self._around() if template == "chat" else ("", "")
        self.gap, self.end_id = self._end(behind)
        # An answer is encoded behind this, since by itself its first token could be another; bare prompts end in "\n".
        self.opening = self._render(USER) if template == "chat" else "\n"
        self.opening_ids = self._encoded(self.opening)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of vocabulary and template: under the same one ids are the same text, and prompts the same ids."""
        template = self.tokenizer.chat_template if self.template == "chat" else None
        known = [self.tokenizer.get_vocab(), template, self.prompt_ids(PROBE), self.end_id]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]

    def prompt_ids(self, user: str) -> list[int]:
        """Ids of the user turn up to where the assistant begins, with exactly the BOS that the model was made with.

        Raises:
            UserError: the template refuses this text.
        """
        return self.conversation_ids([Message("user", user)])

    def conversation_ids(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation up to where the assistant begins, or to where its turn was left open.

        An open turn is encoded as the training encodes an answer: behind the prompt, after the template's lead.

        Raises:
            UserError: the template refuses these turns or this text.
        """
        *before, last = messages
        if last.role == "assistant":
            return [*self.conversation_ids(before), *self.target_ids(last.content, ended=False)]
        if self.template == "chat":
            # The template writes BOS itself where the model has one: the tokenizer must not add a second.
            return self._encoded(self._render(*messages))
        if before:
            raise UserError("model.template=plain: bare text is one user turn; set model.template=chat for more")
        return self.tokenizer(last.content).input_ids

    def target_ids(self, answer: str, ended: bool = True) -> list[int]:
        """Ids to train on behind a prompt's: an answer as the template writes it, up to its end token.

        The answer's own white space stays. `ended=False`, for a cut-off answer, leaves out the end.
        """
        text = self._led(answer)
        return [*self._behind(text.removesuffix(self.gap) + self.gap), self.end_id] if ended else self._behind(text)

    def count(self, answer: str, ended: bool = True) -> int:
        """Tokens of an answer as somebody else generated it, its end token included if it ended."""
        return len(self._behind(answer)) + ended

    def ends(self, eos: int | list[int] | None) -> list[int]:
        """Every id that ends an answer: the template's own end, and the checkpoint's `eos_token_id`."""
        return sorted({self.end_id, *([eos] if isinstance(eos, int) else eos or ())})

    def decode(self, ids: Sequence[int], ends: Collection[int] = ()) -> str:
        """Text of generated ids without the last if it is the end (or one of `ends`); special tokens within stay."""
        ended = len(ids) > 0 and ids[-1] in (self.end_id, *ends)
        return str(self.tokenizer.decode(list(ids[:-1] if ended else ids), skip_special_tokens=False))

    def _encoded(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def _behind(self, text: str) -> list[int]:
        """Ids of an assistant's text as it stands behind a prompt."""
        ids, before = self._encoded(self.opening + text), len(self.opening_ids)
        # A first line break may be joined to the prompt's last one, but generation starts behind the prompt's own ids.
        return ids[before:] if ids[:before] == self.opening_ids else self._encoded(text)

    def _led(self, answer: str) -> str:
        """The answer behind the template's lead (a space, Qwen3's empty `<think>`), unless it comes with its own."""
        with suppress(UserError):
            whole = self._render(USER, Message("assistant", answer))
            if self.lead and whole.startswith(self.opening + self.lead + answer.strip()):
                return self.lead + answer.lstrip()
        return answer

    def _render(self, *turns: Message, opened: bool = True) -> str:
        """A conversation's text; behind a user's turn, up to where the assistant begins if it is to be `opened`."""
        try:
            text = self.tokenizer.apply_chat_template(
                list(map(vars, turns)),
                tokenize=False,
                add_generation_prompt=opened and turns[-1].role != "assistant",
                date_string=TEMPLATE_DATE.strftime("%d %b %Y"),
                strftime_now=TEMPLATE_DATE.strftime,
            )
        except Exception as error:  # a template is a program, and raises what it likes
            raise _refused(f"raises {type(error).__name__} ({str(error)[:200]})") from error
        return str(text)

    def _around(self) -> tuple[str, str]:
        """What the template writes between prompt and answer, and behind the answer."""
        prompt, whole = self._render(USER), self._render(USER, ANSWER)
        if USER.content not in prompt:
            raise _refused("leaves out the user's text; some want a message's content as a list of parts")
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
            if text.strip(" \t\n\r▁"):  # some tokenizers have runs of white space as added tokens
                gap, _, _ = behind.partition(text)
                if gap.strip():
                    break
                return gap, token
        if behind.strip():
            raise _refused(
                f"ends an answer by the text {behind.strip()[:40]!r}, which is no added token of the tokenizer: no "
                "answer would stop there"
            )
        if self.tokenizer.eos_token_id is None:
            raise UserError(
                "model.name_or_path: the tokenizer names no end-of-sequence token, so no answer could ever end"
            )
        return "", self.tokenizer.eos_token_id


def read_chat(source: Path | str, template: str, key: str) -> Chat:
    """The tokenizer in a folder or of a hub id, which the recipe names under `key`.

    Raises:
        UserError: there is none that can be read, or its chat template cannot be used.
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
