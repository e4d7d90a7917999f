"""Whether prompt and longest answer fit into the model's context, checked before anything is generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tale.data.chat import Chat
from tale.errors import UserError
from tale.inference.requests import Request
from tale.text import log_warning

LIMITS = "sampling.max_tokens or the strategies' budgets"
MAX_NAMED = 5  # questions named in the message; others are counted


def too_long(prompt_tokens: int, max_tokens: int, max_model_len: int | None) -> str | None:
    """Why prompt and answer do not fit into the context (`max_model_len` None: unknown); None if they fit."""
    needed = prompt_tokens + max_tokens
    if max_model_len is None or needed <= max_model_len:
        return None
    return f"too long: prompt and answer may need {needed} tokens, the model has {max_model_len}"


def check_context_length(asked: Mapping[str, Sequence[Request]], chat: Chat | None, max_model_len: int | None) -> None:
    """Warn about questions, by id, with a request that is too long; an engine fails these requests one by one.

    Without a tokenizer or a known context length nothing is checked.

    Raises:
        UserError: the longest answer alone fills the context, or every question is too long.
    """
    if max_model_len is None:
        return
    most = max((request.sampling.max_tokens for requests in asked.values() for request in requests), default=0)
    if most >= max_model_len:
        raise UserError(
            f"{LIMITS}: an answer of {most} tokens leaves no room for a prompt, the model has {max_model_len} tokens"
        )
    if chat is None:
        return
    reasons = {}
    for id, requests in asked.items():
        needed = [(len(chat.conversation_ids(request.messages)), request.sampling.max_tokens) for request in requests]
        if why := too_long(*max(needed, key=sum), max_model_len):
            reasons[id] = why
    if not reasons:
        return
    named = "; ".join(f"{id} is {why}" for id, why in list(reasons.items())[:MAX_NAMED])
    more = f"; and {len(reasons) - MAX_NAMED} more" if len(reasons) > MAX_NAMED else ""
    said = f"{len(reasons)} of {len(asked)} questions do not fit into the model's context: {named}{more}"
    if len(reasons) == len(asked):
        raise UserError(f"{said}; lower {LIMITS}")
    log_warning(f"{said}. They are left unanswered, with this error")
