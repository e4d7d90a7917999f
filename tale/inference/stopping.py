"""Where an answer ends: at an end token, before a stop string, or at `max_tokens`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tale.inference.requests import Request

if TYPE_CHECKING:
    from tale.data.chat import Chat  # it imports transformers, which takes seconds


@dataclass(frozen=True)
class StoppedAnswer:
    """A finished answer: its ids, with the end token or a stop string's tokens, and its text without them."""

    ids: tuple[int, ...]
    text: str
    finish: Literal["stop", "length"]
    stop_string: str | None = None


def stopped_answer(
    request: Request, generated: Sequence[int], chat: Chat, ends: Collection[int]
) -> StoppedAnswer | None:
    """The answer in the `generated` ids, which may go beyond its end; None while it has not ended."""
    limit = request.sampling.max_tokens
    end = next((i for i, token in enumerate(generated[:limit], 1) if token in ends), None)
    ids = generated[: end or limit]
    if request.stop and (stopped := _before_stop(request.stop, ids, chat, ends)):
        return stopped
    if not end and len(ids) < limit:
        return None
    return StoppedAnswer(tuple(ids), chat.decode(ids, ends), "stop" if end else "length")


def _before_stop(stop: Sequence[str], ids: Sequence[int], chat: Chat, ends: Collection[int]) -> StoppedAnswer | None:
    """The answer up to the first stop string, with the fewest ids that contain it; None without a stop string."""
    text = chat.decode(ids, ends)
    places = [(place, string) for string in stop if (place := text.find(string)) >= 0]
    if not places:
        return None
    count = next(i for i in range(1, len(ids) + 1) if any(string in chat.decode(ids[:i], ends) for string in stop))
    place, string = min(places)
    return StoppedAnswer(tuple(ids[:count]), text[:place], "stop", string)
