"""The decision for each request: its budget, or why it passes unchanged; and the request with its budget.

Pure functions of the request and the recipe. Only an estimate, where one is needed, is made elsewhere
(`tale.serve.estimates`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from tale.data.prompts import Turn, budgeted, stated_budget
from tale.data.question import Question
from tale.serve.control import in_control, question_key
from tale.serve.recipe import PASS, EffortConfig, ServeRecipe
from tale.serve.reply import dumped, parsed

# budget, control: drawn at random; stated: the client's own budget; unchanged: passed on by a rule.
Arm = Literal["budget", "control", "stated", "unchanged"]
Source = Literal["client", "effort", "trained", "zero_shot", "cache"]
HEADER = "x-token-budget"
# The fields of native thinking budgets, by kind of upstream.
NATIVE = {
    "openrouter": ("reasoning", "max_tokens"),
    "vllm": ("thinking_token_budget",),
    "sglang": ("custom_params", "thinking_budget"),
    "llama_cpp": ("thinking_budget_tokens",),
    "gemini": ("extra_body", "google", "thinking_config", "thinking_budget"),
}
LIMITS = ("max_completion_tokens", "max_tokens")


class RefusedError(Exception):
    """A request that the proxy answers itself, with this HTTP status and a message that says why."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Call:
    """A chat completions request: its JSON object."""

    body: Mapping[str, Any]

    @classmethod
    def read(cls, content: bytes) -> Call | None:
        """The call in a request's body; None if it is not a JSON object with messages."""
        body = parsed(content) or {}
        messages = body.get("messages")
        return cls(body) if isinstance(messages, list) and messages else None

    @cached_property
    def texts(self) -> list[str]:
        """The texts of the last user turn, a single one or those of its parts; empty if the user is not last."""
        message = self.body["messages"][-1]
        if not isinstance(message, dict) or message.get("role") != "user":
            return []
        content = message.get("content")
        if isinstance(content, str):
            return [content]
        return [part["text"] for part in content if _is_text(part)] if isinstance(content, list) else []

    @property
    def question(self) -> Question:
        """What an estimator sees of the last user turn."""
        return Turn.read("\n".join(self.texts)).question

    @property
    def model(self) -> str:
        """The model that is asked."""
        return str(self.body.get("model", ""))

    @property
    def streams(self) -> bool:
        """Whether the answer is to be streamed."""
        return bool(self.body.get("stream"))

    @property
    def choices(self) -> int:
        """How many answers are asked for."""
        n = self.body.get("n")
        return n if type(n) is int and n > 1 else 1

    @property
    def limits(self) -> dict[str, Any]:
        """The client's own limits by their fields, not checked."""
        return {name: self.body[name] for name in LIMITS if self.body.get(name) is not None}


@dataclass(frozen=True)
class Decision:
    """What is done with a request: in arm "budget" without a `budget` it needs an estimate; `reason`: why unchanged."""

    arm: Arm
    key: str | None = None
    reason: str | None = None
    budget: int | None = None
    source: Source | None = None


@dataclass(frozen=True)
class Budgeted:
    """A request under a budget: its body, the budget asked for, and the limit where it is below the client's own."""

    content: bytes
    asked: int
    limit: int | None


def decide(call: Call | None, header: str | None, recipe: ServeRecipe) -> Decision:
    """The decision about a chat completions request, and a `header` with the client's budget.

    In this order: the header; what a policy passes on; a budget in the turn's own words; a native budget field; the
    effort; the control group; an estimate.

    Raises:
        RefusedError: the client's budget is not allowed or cannot be stated here, or its last turn states one already.
    """
    if recipe.mode == PASS:
        return Decision("unchanged", reason="mode=pass")
    if call is None:
        return Decision("unchanged", reason="not a chat completions request")
    key = question_key(recipe.seed, call.model, "\n".join(call.texts)) if call.texts else None
    in_turn = any(stated_budget(text, recipe.budget_line) is not None for text in call.texts)
    if header is not None:
        if not call.texts:
            raise RefusedError(400, f"{HEADER}: the last message is not a user's text, so no budget can be stated")
        if in_turn:
            raise RefusedError(400, f"{HEADER}: the last message states a budget, too; leave out one of them")
        return Decision("stated", key, budget=_checked(HEADER, _integer(header), recipe), source="client")
    if reason := _passed_on(call, recipe):
        return Decision("unchanged", key, reason)
    if in_turn:
        return Decision("unchanged", key, "a budget in the turn")
    for path in NATIVE.values():
        if (value := _at(call.body, path)) is not None:
            return Decision("stated", key, budget=_checked(".".join(path), value, recipe), source="client")
    effort = _at(call.body, ("reasoning_effort",)) or _at(call.body, ("reasoning", "effort"))
    budget = _budget_of(effort, recipe.efforts)
    if budget == 0:
        return Decision("unchanged", key, "effort without a budget")
    if in_control(str(key), recipe.control_share):
        return Decision("control", key)
    return Decision(
        "budget", key, budget=budget and min(budget, recipe.max_budget), source="effort" if budget else None
    )


def with_budget(call: Call, budget: int, recipe: ServeRecipe) -> Budgeted:
    """The request that states a budget in its last user turn, has it as a limit and, if so configured, natively.

    The budget is at most the client's own limit, which stays where it is smaller than the proxy's. Without a `slack`
    no limit counts. One that is not a positive integer is left to the upstream to judge.
    """
    own = [value for value in call.limits.values() if type(value) is int and value > 0]
    asked = budget if recipe.slack is None else min([budget, *own])
    *before, last = call.body["messages"]
    made = {
        **call.body,
        "messages": [*before, {**last, "content": _stated(last["content"], asked, recipe.budget_line)}],
    }
    limit = None
    if recipe.slack is not None and len(own) == len(call.limits):
        most = math.ceil(asked * recipe.slack) + recipe.room
        if not own or most < min(own):
            limit = most
            fields = call.limits or [LIMITS[recipe.upstream_kind == "other"]]
            made |= dict.fromkeys(fields, most)
    native = NATIVE.get(recipe.upstream_kind) if recipe.native_budget else None
    efforts = (("reasoning_effort",), ("reasoning", "effort"))
    if native and all(_at(call.body, path) is None for path in (native, *efforts)):
        made = _with(made, native, asked)
    return Budgeted(dumped(made), asked, limit)


def _budget_of(effort: object, efforts: EffortConfig) -> int | None:
    """The budget of an effort; None for one that is estimated, missing or unknown."""
    table = {"none": efforts.none, "minimal": efforts.minimal, "low": efforts.low, "medium": efforts.medium}
    table |= {"high": efforts.high, "xhigh": efforts.xhigh, "max": efforts.max}
    return table.get(effort) if isinstance(effort, str) else None


def _passed_on(call: Call, recipe: ServeRecipe) -> str | None:
    """Why a policy passes the request on unchanged."""
    if not any(text.strip() for text in call.texts):
        return "the last message is not a user's text"
    policy, body = recipe.policy, call.body
    if policy.tools == PASS and (body.get("tools") or body.get("functions")):
        return "tools"
    form = _at(body, ("response_format", "type"))
    if policy.response_format == PASS and form not in (None, "text"):
        return "response_format"
    return "n" if policy.n == PASS and call.choices > 1 else None


def _stated(content: Any, budget: int, line: str | None) -> Any:
    """The content of a turn with its budget line in its text, or in the last text among its parts."""
    if isinstance(content, str):
        return budgeted(Turn.read(content), budget, line)
    last = max(i for i, part in enumerate(content) if _is_text(part))
    text = budgeted(Turn.read(content[last]["text"]), budget, line)
    return [*content[:last], {**content[last], "text": text}, *content[last + 1 :]]


def _checked(name: str, value: Any, recipe: ServeRecipe) -> int:
    if type(value) is not int or not 1 <= value <= recipe.max_budget:
        raise RefusedError(400, f"{name}: a budget must be an integer from 1 to {recipe.max_budget} tokens")
    return value


def _integer(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _at(body: Any, path: tuple[str, ...]) -> Any:
    """The value of a nested field; None if it is missing."""
    for name in path:
        body = body.get(name) if isinstance(body, Mapping) else None
    return body


def _with(body: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The body with a nested field set."""
    name, *rest = path
    inner = body.get(name)
    return {**body, name: _with(inner if isinstance(inner, Mapping) else {}, tuple(rest), value) if rest else value}
