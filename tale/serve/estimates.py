"""A budget for each question: by a trained estimator in this process, or zero-shot by the upstream, and cached."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tale.data import prompts
from tale.data.question import Question
from tale.estimators import Estimate
from tale.estimators.online import UsageQuantile
from tale.estimators.zero_shot import read_estimate
from tale.inference.openai.response import ChatResponse, NoCompletionError
from tale.serve.budget import LIMITS, Call, Source
from tale.serve.recipe import ServeRecipe
from tale.storage.files import write_atomic
from tale.storage.strict_json import read_json
from tale.text import log_warning

ONLINE = "online.json"
SAVED_EVERY = 64  # answers
LONGEST = 50_000  # characters of a question: an estimate must not hold up the other requests
Ask = Callable[[bytes], Awaitable[bytes | None]]


@dataclass(frozen=True)
class Found:
    """A budget, with the estimate before the online factor, and the tokens of the estimator's own call.

    Without a budget the request passes unchanged, and `reason` says why.
    """

    budget: int | None
    source: Source
    estimate: int = 0
    reason: str | None = None
    prompt_tokens: int = 0
    tokens: int = 0


class Estimates:
    """The recipe's estimator.

    Raises:
        UserError: the estimator or the file of its online quantiles is missing or damaged, or it was trained with
            another `budget_line`.
    """

    def __init__(self, recipe: ServeRecipe):
        self.recipe = recipe
        self.trained = None
        if recipe.estimator:
            from tale.estimators.saved import load_estimator  # imports scikit-learn: 90 MB

            self.trained, card = load_estimator(Path(recipe.estimator))
            card.check_budget_line(recipe.budget_line, f"estimator: {recipe.estimator}")
        self.cache: OrderedDict[str, Estimate] = OrderedDict()
        self.file = Path(recipe.output) / ONLINE
        self.online: UsageQuantile | None = None
        if recipe.online:
            self.online = UsageQuantile(recipe.online_quantile)
            if self.file.exists():
                self.online = read_json(self.file, UsageQuantile, "the quantiles of a proxy", "remove it to begin anew")
        self.noted = 0

    async def find(self, call: Call, key: str, ask: Ask) -> Found:
        """The budget of a call's question, by whose key it is cached.

        `ask` makes the zero-shot call; it returns None if that fails.
        """
        question = call.question
        if len(question.text) > LONGEST:
            return Found(None, "trained" if self.trained else "zero_shot", reason="too long to estimate")
        if self.trained:
            return self._found(self._trained(question), "trained")
        if key in self.cache:
            self.cache.move_to_end(key)
            return self._found(self.cache[key], "cache")
        reply = await ask(self._zero_shot(call, question))
        try:
            response = ChatResponse.read(reply or b"")
        except NoCompletionError:
            return Found(None, "zero_shot", reason="estimate not answered")
        value = read_estimate(response.choices[0].text)
        estimate = Estimate(value, fallback=None if value else "unreadable estimate")
        self.cache[key] = estimate
        while len(self.cache) > self.recipe.cache_size:
            self.cache.popitem(last=False)
        usage = (response.usage.prompt, response.usage.answer)
        prompt_tokens, tokens = (count if type(count) is int and count >= 0 else 0 for count in usage)
        return self._found(estimate, "zero_shot", prompt_tokens, tokens)

    def note(self, found: Found, used: int) -> None:
        """Observe the tokens of an answer under a budget."""
        if self.online:
            self.online.note(found.estimate, used)
            self.noted += 1
            if self.noted % SAVED_EVERY == 0:
                self.save()

    def save(self) -> None:
        """Write the online quantiles, if there are any."""
        if self.online and self.noted:
            write_atomic(self.file, json.dumps(vars(self.online)) + "\n")

    def _trained(self, question: Question) -> Estimate:
        try:
            return self.trained.estimate([question])[0]  # type: ignore[union-attr]
        except Exception as error:  # whatever it is, the client gets an answer
            log_warning(f"the estimator failed ({type(error).__name__}); the request passes unchanged")
            return Estimate(None, fallback="the estimator failed")

    def _zero_shot(self, call: Call, question: Question) -> bytes:
        """The estimator's call, sampled as the client's."""
        limit = LIMITS[self.recipe.upstream_kind == "other"]
        body: dict[str, Any] = {
            "model": call.body.get("model"),
            "messages": [{"role": "user", "content": prompts.estimate(question)}],
            limit: self.recipe.estimator_max_tokens,
            **{name: call.body[name] for name in ("temperature", "seed") if name in call.body},
        }
        return json.dumps(body).encode()

    def _found(self, estimate: Estimate, source: Source, prompt_tokens: int = 0, tokens: int = 0) -> Found:
        try:
            estimated = estimate.budget(self.recipe.budget_multiplier)
        except (OverflowError, ValueError):  # infinite, or none
            return Found(None, source, reason="the estimator failed")
        if estimated is None:
            return Found(None, source, 0, estimate.fallback or "no budget", prompt_tokens, tokens)
        estimated = min(max(estimated, 1), self.recipe.max_budget)
        factor = self.online.factor(estimated) if self.online else 1.0
        budget = min(max(round(estimated * factor), 1), self.recipe.max_budget)
        return Found(budget, source, estimated, None, prompt_tokens, tokens)
