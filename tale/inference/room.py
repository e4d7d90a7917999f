"""Whether prompt and longest answer fit into a model's context, told before anything is generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tale.data.chat import Chat
from tale.errors import UserError
from tale.inference.requests import Request
from tale.text import warn

NAMED = 5  # questions that are named; of the others it is said how many there are


def too_long(prompt_tokens: int, max_tokens: int, context: int | None) -> str | None:
    """Why a prompt cannot be answered in a context of so many tokens (None: it is not known); None where it can."""
    needed = prompt_tokens + max_tokens
    if context is None or needed <= context:
        return None
    return f"too long: prompt and answer (sampling.max_tokens) need {needed} tokens, the model has {context}"


def check_room(asked: Mapping[str, Sequence[Request]], chat: Chat | None, context: int | None) -> None:
    """Name the questions, by their ids, with a request that is too long; an engine refuses these one by one.

    Without a tokenizer, or where the context is not known, that is found out by asking.

    Raises:
        UserError: the longest answer alone fills the context, or every question is too long.
    """
    if context is None:
        return
    most = max((request.sampling.max_tokens for requests in asked.values() for request in requests), default=0)
    if most >= context:
        raise UserError(f"sampling.max_tokens={most}: leaves no room for a prompt, the model has {context} tokens")
    if chat is None:
        return
    reasons = {}
    for id, requests in asked.items():
        needed = [(len(chat.conversation_ids(request.messages)), request.sampling.max_tokens) for request in requests]
        if why := too_long(*max(needed, key=sum), context):
            reasons[id] = why
    if not reasons:
        return
    named = "; ".join(f"{id} is {why}" for id, why in list(reasons.items())[:NAMED])
    more = f"; and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
    said = f"{len(reasons)} of {len(asked)} questions do not fit into the model's context: {named}{more}"
    if len(reasons) == len(asked):
        raise UserError(f"{said}; lower sampling.max_tokens")
    warn(f"{said}. They are left unanswered, with this reason")
