"""From a prompt to token ids and back: the one place where a chat template is applied.

Search, training and evaluation all go through `Chat`, so a training prompt and an evaluation prompt are the same ids.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tale.errors import UserError

# Llama 3.1's template prints a date. Fixed, so that a prompt is the same ids on every day.
TEMPLATE_DATE = "26 Jul 2024"


class Chat:
    """A tokenizer with its chat template (`template="chat"`), or with the bare prompt (`"plain"`).

    Raises:
        UserError: the tokenizer has no chat template and `template="chat"`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: Literal["chat", "plain"] = "chat"):
        if template == "chat" and not tokenizer.chat_template:
            raise UserError(
                "model.template: this model has no chat template; set model.template=plain to send bare text"
            )
        self.tokenizer = tokenizer
        self.template = template
        self.end_id = self._end_id()

    def prompt_ids(self, user: str) -> list[int]:
        """Ids of the user turn up to where the assistant begins, with exactly the BOS that the model was made with."""
        if self.template == "plain":
            return self.tokenizer(user).input_ids
        # The template writes BOS itself where the model has one: the tokenizer must not add a second.
        return self.tokenizer(self._render(user, answer=None), add_special_tokens=False).input_ids

    def target_ids(self, answer: str, ended: bool = True) -> list[int]:
        """Ids of an assistant's answer. `ended=False`, for a cut-off answer, leaves out the end-of-sequence token."""
        ids = self.tokenizer(answer, add_special_tokens=False).input_ids
        return [*ids, self.end_id] if ended else ids

    def ends(self, eos: int | list[int] | None) -> list[int]:
        """Every id that ends an answer: the template's own end, and the checkpoint's `eos_token_id`."""
        return sorted({self.end_id, *([eos] if isinstance(eos, int) else eos or ())})

    def decode(self, ids: list[int]) -> str:
        """Text of generated ids, without special tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def _render(self, user: str, answer: str | None) -> str:
        messages = [{"role": "user", "content": user}]
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        return self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=answer is None, date_string=TEMPLATE_DATE
        )

    def _end_id(self) -> int:
        """The token that the template writes behind an answer (`<|eot_id|>` for Llama 3), else the tokenizer's own."""
        if self.template == "chat":
            after = self._render("question", answer="answer!").rpartition("answer!")[2]
            ids = self.tokenizer(after, add_special_tokens=False).input_ids
            if ids and ids[0] in self.tokenizer.all_special_ids:
                return ids[0]
        if self.tokenizer.eos_token_id is None:
            raise UserError("model.source: the tokenizer names no end-of-sequence token, so no answer could ever end")
        return self.tokenizer.eos_token_id


def read_chat(source: Path | str, template: Literal["chat", "plain"], key: str) -> Chat:
    """The tokenizer in a folder or of a hub id, which the recipe names under `key`.

    Raises:
        UserError: there is none that can be read.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{key}: no tokenizer can be read in {source} ({reason})") from error
    return Chat(tokenizer, template)
