"""Methods at equal budgets: how often each is right for its tokens and price, compared with a single chain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Annotated

from tale.config.sections import PriceConfig
from tale.evaluation.budgets import baselines, strategy_of
from tale.evaluation.replies import Reply
from tale.evaluation.summary import RESULTS, bounds, expense, mean_score, priced, score_difference
from tale.inference.journal import JournaledEngine
from tale.output.formats import duration, number, percent, rounded, two_digits, whole
from tale.output.tables import Column, Table, columns_of, table_of
from tale.solvers.base import Method
from tale.solvers.strategy import Strategy
from tale.statistics import UNKNOWN


@dataclass(frozen=True)
class Usage:
    """What calls took of an engine: seconds of generation, and calls that the journal answered again, with tokens.

    A call that an earlier start of the run generated counts where it is first used, with the seconds that it took.
    """

    seconds: float = 0.0
    reused_calls: int = 0
    reused_tokens: int = 0

    @classmethod
    def of(cls, engine: JournaledEngine) -> Usage:
        """All so far."""
        again = engine.repeated, engine.reused
        return cls(engine.first_uses.seconds, sum(cost.calls for cost in again), sum(cost.tokens for cost in again))

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, name) + getattr(other, name) for name in vars(self)))

    def __sub__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, name) - getattr(other, name) for name in vars(self)))


@dataclass(frozen=True)
class StrategyRow:
    """A method over all questions, a strategy at one budget. Shares are fractions, tokens and calls are means.

    `strategy` is the method's name without its B, which is the mean over questions where it is `budget_multiplier`
    times their estimates. `score` is by `metric`; `single_difference` is to the plain single chain at the same B,
    `adapter_difference` to the same strategy without the adapter, both paired by question and None without one.
    `*_low`/`*_high` bound 95 % intervals. Calls and tokens include an estimator's. `reused_…` are totals of the calls
    that the journal answered from another call's samples, and `seconds` is the total that the engine took for the
    others. `expense` is in 10⁻⁵ dollars a question. `asked_without_budget` counts answers after an unreadable estimate,
    and `failed` those that a failed call ended, with the answer so far or none.
    """

    method: str
    strategy: Annotated[str, Column("strategy")]
    total_budget: Annotated[float | None, Column("B", whole)]
    budget_multiplier: Annotated[float | None, Column("B, × estimate", rounded)]
    output_tokens: Annotated[float, Column("output tokens", number)]
    total_tokens: Annotated[float, Column("tokens, read and generated", number)]
    expense: Annotated[float | None, Column("expense, 10⁻⁵ $", two_digits)]
    answered: Annotated[float, Column("answered, %", percent)]
    calls: Annotated[float, Column("calls", two_digits)]
    reused_calls: Annotated[int, Column("calls reused, in all", whole)]
    reused_tokens: Annotated[int, Column("tokens reused, in all", whole)]
    seconds: Annotated[float, Column("generation, in all", duration)]
    metric: str
    score: float
    score_low: float
    score_high: float
    single_difference: float | None
    single_difference_low: float | None
    single_difference_high: float | None
    adapter_difference: float | None
    adapter_difference_low: float | None
    adapter_difference_high: float | None
    asked_without_budget: Annotated[int, Column("asked without a budget", whole, blank=0)] = 0
    failed: Annotated[int, Column("ended by a failed call", whole, blank=0)] = 0

    @property
    def curve(self) -> str | None:
        """The name of the curve that the row is a point of; None without a budget B."""
        if self.total_budget is None:
            return None
        return self.strategy if self.budget_multiplier is None else f"{self.strategy}, B by estimate"


def compare_strategies(
    methods: Sequence[Method], replies: Mapping[str, list[Reply]], usage: Mapping[str, Usage], prices: PriceConfig
) -> list[StrategyRow]:
    """One row per method and budget, in order; `replies` have the same questions in the same order."""
    return [_row(method, methods, replies, usage[method.name], prices) for method in methods]


def strategies_table(rows: Sequence[StrategyRow], about: str, name: str = "strategies") -> Table:
    """The table of rows."""
    declared, metric, change = columns_of(StrategyRow), RESULTS[rows[0].metric], RESULTS[f"{rows[0].metric}_difference"]
    first = {column: declared.pop(column) for column in ("strategy", "total_budget", "budget_multiplier")}
    to = {name: replace(change, heading=change.heading.replace("vanilla", name)) for name in ("single", "no adapter")}
    scores = {"score": metric, "single_difference": to["single"], "adapter_difference": to["no adapter"]}
    caption = f"At equal budgets: {about}; in brackets 95 % intervals"
    return table_of(name, caption, {**first, **scores, **declared}, rows)


def _row(
    method: Method, methods: Sequence[Method], replies: Mapping[str, list[Reply]], usage: Usage, prices: PriceConfig
) -> StrategyRow:
    ours = replies[method.name]
    single, bare = ((name and score_difference(ours, replies[name])) or UNKNOWN for name in baselines(method, methods))
    return StrategyRow(
        method=method.name,
        strategy=strategy_of(method),
        total_budget=fmean(map(_budget, ours)) if isinstance(method, Strategy) else None,
        budget_multiplier=method.budget_multiplier if isinstance(method, Strategy) else None,
        output_tokens=fmean(r.output_tokens for r in ours),
        total_tokens=fmean(r.output_tokens + r.prompt_tokens + r.estimator_prompt_tokens for r in ours),
        expense=fmean(expense(r, prices) for r in ours) if priced(prices) else None,
        answered=fmean(r.value is not None for r in ours),
        calls=fmean(map(_calls, ours)),
        **vars(usage),
        metric=ours[0].metric,
        **bounds("score", mean_score(ours)),
        **bounds("single_difference", single),
        **bounds("adapter_difference", bare),
        asked_without_budget=sum(r.fallback is not None for r in ours),
        failed=sum("error" in (r.finish, *(call.finish for call in r.calls or ())) for r in ours),
    )


def _budget(reply: Reply) -> int:
    assert reply.total_budget
    return reply.total_budget


def _calls(reply: Reply) -> int:
    return (1 if reply.calls is None else len(reply.calls)) + (reply.estimator_text is not None)
