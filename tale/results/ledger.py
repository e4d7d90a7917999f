"""The cost ledger: tokens, time and price of every run and method, and after how many queries training has paid."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from tale.config.sections import PriceConfig
from tale.evaluation.replies import Reply, count_seeds, samplings_for
from tale.evaluation.run import baseline_of
from tale.evaluation.seeds import mean_over_seeds, sampling_of
from tale.inference import Completion, Request, costs
from tale.inference.journal import Journal
from tale.output import formats
from tale.output.formats import duration, whole
from tale.output.tables import Column, Interval
from tale.results.runs import EvaluationRun, Run, SearchRun, ServeRun, TrainRun, WordingsRun
from tale.solvers.base import Method
from tale.solvers.strategy import Strategy
from tale.statistics import paired_difference


@dataclass(frozen=True)
class Spent:
    """A cost: tokens read, generated and trained on, and wall time in seconds; None: unknown."""

    what: Annotated[str, Column("what")]
    calls: Annotated[int | None, Column("calls", whole)] = None
    tokens_in: Annotated[int | None, Column("tokens read", whole)] = None
    tokens_out: Annotated[int | None, Column("tokens generated", whole)] = None
    trained: Annotated[int | None, Column("tokens trained on", whole)] = None
    seconds: Annotated[float | None, Column("wall time", duration)] = None
    dollars: Annotated[float | None, Column("price", formats.dollars)] = None

    @property
    def tokens(self) -> int | None:
        """All tokens processed by the model; None if the prompt tokens of calls are unknown."""
        if self.calls and self.tokens_in is None:
            return None
        known = [count for count in (self.tokens_in, self.tokens_out, self.trained) if count is not None]
        return sum(known) if known else None


def spent_on_search(run: SearchRun, hourly: float) -> Spent:
    """The cost of all calls in the search's journals; without a journal only the answers' tokens, from its records."""
    if run.journals:
        return _journaled("search", run.journals, run.recipe.prices, hourly)
    answers = [answer for r in run.records or () for attempt in (r.vanilla, *r.attempts) for answer in attempt.answers]
    return Spent("search", len(answers), tokens_out=sum(answer.tokens for answer in answers))


def spent_on_training(run: TrainRun, hourly: float) -> Spent:
    """Tokens and time logged in the event files, GRPO's rollouts included; validation counts only in the time."""
    seconds = run.curves.seconds if run.curves.steps else None
    what = f"training, {run.recipe.objective.value.upper()}"
    read, sampled = (run.curves.total(f"train/rollout_{kind}_tokens") for kind in ("prompt", "completion"))
    return Spent(what, None, read, sampled, run.curves.tokens, seconds, _by_the_hour(seconds, hourly))


def spent_on_answers(run: EvaluationRun | WordingsRun, hourly: float) -> Spent:
    """The cost of all calls in the journals; calls that methods share count once."""
    what = "evaluation" if isinstance(run, EvaluationRun) else "wordings"
    return _journaled(what, run.journals, run.recipe.prices, hourly)


def spent_on_serving(run: ServeRun) -> Spent:
    """The tokens of all answers whose usage or events were read, with the estimators' own."""
    rows = [row for row in run.requests if row.used is not None or row.estimator_tokens]
    tokens_in = sum((row.prompt_tokens or 0) + row.estimator_prompt_tokens for row in rows)
    return Spent("serving", len(rows), tokens_in, sum(row.spent for row in rows))


@dataclass(frozen=True)
class Query:
    """The cost of one question with a method, its estimator's call separate; seconds are None if no journal has them.

    Wall time is the engine's, shared by all that is generated at the same time: not a single user's waiting time. That
    of a strategy's `calls` is not known: a reply does not have their prompts, to find them in a journal.
    """

    calls: int
    tokens_in: int
    tokens_out: int
    estimator_in: int
    estimator_out: int
    seconds: float | None
    estimator_seconds: float | None

    @property
    def tokens(self) -> int:
        """All tokens read and generated, the estimator's included."""
        return self.tokens_in + self.tokens_out + self.estimator_in + self.estimator_out

    @property
    def all_seconds(self) -> float | None:
        """Wall time, the estimator's included."""
        if self.seconds is None or self.estimator_seconds is None:
            return None
        return self.seconds + self.estimator_seconds

    def dollars(self, prices: PriceConfig, hourly: float) -> float | None:
        """Its price by token if the recipe has prices, else by hour."""
        if prices.input or prices.output:
            tokens_in, tokens_out = self.tokens_in + self.estimator_in, self.tokens_out + self.estimator_out
            return costs.dollars(prices, tokens_in, tokens_out)
        return _by_the_hour(self.all_seconds, hourly)


def queries(run: EvaluationRun, label: str) -> list[Query]:
    """One query per reply, in order."""
    replies = (run.replies or {})[label]
    answers, estimates = _times(run, replies, run.methods[label])
    return [
        Query(
            1 if reply.calls is None else len(reply.calls), reply.prompt_tokens, reply.tokens,
            reply.estimator_prompt_tokens, reply.estimator_tokens, seconds, estimator_seconds,
        )
        for reply, seconds, estimator_seconds in zip(replies, answers, estimates, strict=True)
    ]  # fmt: skip


def spent_on_method(run: EvaluationRun, label: str, hourly: float) -> list[Spent]:
    """The cost of a method's calls, as if it were the only one; its estimator's calls are a separate row."""
    asked = queries(run, label)
    rows = [("", [(q.calls, q.tokens_in, q.tokens_out, q.seconds) for q in asked])]
    if any(reply.estimator_text is not None for reply in (run.replies or {})[label]):
        rows.append((": its estimator", [(1, q.estimator_in, q.estimator_out, q.estimator_seconds) for q in asked]))
    return [_sum(f"{label}{part}", calls, run.recipe.prices, hourly) for part, calls in rows]


REFUSED = (Completion.failed("not journalled"), 0.0)  # a call that gave no answer


@dataclass(frozen=True)
class BreakEven:
    """The cost of training a method, what it saves per query, and the queries after which the two are equal.

    `unit` is tokens, seconds or dollars. Queries are infinite where nothing is saved; all is None where not known.
    """

    method: str
    unit: str
    search: float | None
    training: float | None
    saved: Interval | None
    queries: Interval | None


def break_even(run: EvaluationRun, label: str, runs: Sequence[Run], hourly: float) -> list[BreakEven]:
    """The break-even against vanilla CoT in tokens, seconds and dollars, paired by question; ignores accuracy."""
    baseline = baseline_of(run.recipe.methods)
    training = run.training(run.methods[label], runs)
    searches = training.searches(runs) if training else []
    learnt = spent_on_training(training, hourly) if training else None
    searched = [spent_on_search(search, hourly) for search in searches]
    whole = training is not None and len(searches) == len(set(training.recipe.data.records))
    prices = run.recipe.prices
    ours, theirs = queries(run, label), queries(run, baseline) if baseline else []
    seeds = count_seeds((run.replies or {})[label])
    units: dict[str, Callable[[Query], float | None]] = {
        "tokens": lambda q: q.tokens,
        "seconds": lambda q: q.all_seconds,
        "dollars": lambda q: q.dollars(prices, hourly),
    }
    rows = []
    for unit, of in units.items():
        search = _total([getattr(s, unit) for s in searched]) if whole else None
        trained = getattr(learnt, unit) if learnt else None
        rows.append(_break_even(label, unit, search, trained, [of(q) for q in theirs], [of(q) for q in ours], seeds))
    return rows


def _break_even(
    label: str,
    unit: str,
    search: float | None,
    training: float | None,
    vanilla: Sequence[float | None],
    ours: Sequence[float | None],
    seeds: int,
) -> BreakEven:
    saved = queries = None
    if vanilla and None not in (*vanilla, *ours):
        saved = Interval(*paired_difference(mean_over_seeds(vanilla, seeds), mean_over_seeds(ours, seeds)))  # type: ignore[arg-type]
    if saved and search is not None and training is not None:
        paid = search + training
        savings = saved.value, saved.high, saved.low
        queries = Interval(*(math.ceil(paid / saving) if saving > 0 else math.inf for saving in savings))
    return BreakEven(label, unit, search, training, saved, queries)


def _times(
    run: EvaluationRun, replies: Sequence[Reply], method: Method
) -> tuple[list[float | None], list[float | None]]:
    """Seconds of each answer, and of each estimator's call (0 where there was none)."""
    answers: Sequence[tuple[Completion, float] | None] = [None] * len(replies)
    if not isinstance(method, Strategy):
        samplings = samplings_for(sampling_of(run.recipe), [reply.seed for reply in replies])
        asked = [Request.user(r.prompt, sampling) for r, sampling in zip(replies, samplings, strict=True)]
        missing = [REFUSED if reply.error else None for reply in replies]
        found = (list(map(journal.answer_to, asked, missing)) for journal in _journals(run, method))
        answers = next((calls for calls in found if _are(calls, replies)), answers)
    # A reply does not have its estimator's prompt, so the estimator's call is found by its text and tokens.
    calls: dict[tuple[str, int, int], list[float]] = defaultdict(list)
    for journal in _journals(run, method) if any(r.estimator_text is not None for r in replies) else ():
        for completion, seconds in journal.answers.values():
            calls[completion.text, completion.tokens, completion.prompt_tokens].append(seconds)
    estimates = [_estimate(reply, calls) for reply in replies]
    return [answer and answer[1] for answer in answers], estimates


def _journals(run: EvaluationRun, method: Method) -> Iterable[Journal]:
    return (journal for journal in run.journals if ("adapter" in journal.settings) == bool(method.adapter))


def _are(calls: Sequence[tuple[Completion, float] | None], replies: Sequence[Reply]) -> bool:
    """Whether these calls gave these replies: several adapters are asked the same prompts."""
    return all(call and call[0].text == reply.text for call, reply in zip(calls, replies, strict=True))


def _estimate(reply: Reply, calls: dict[tuple[str, int, int], list[float]]) -> float | None:
    if reply.estimator_text is None:
        return 0.0
    alike = calls[reply.estimator_text, reply.estimator_tokens, reply.estimator_prompt_tokens]
    return alike.pop() if alike else None


def _journaled(what: str, journals: Iterable[Journal], prices: PriceConfig, hourly: float) -> Spent:
    calls = [call for journal in journals for call in journal.answers.values()]
    rows = [(1, completion.prompt_tokens, completion.tokens, seconds) for completion, seconds in calls]
    return _sum(what, rows, prices, hourly)


def _sum(what: str, rows: Sequence[tuple[int, int, int, float | None]], prices: PriceConfig, hourly: float) -> Spent:
    """The sum of rows of calls, tokens in, tokens out and seconds."""
    calls, tokens_in, tokens_out = sum(r[0] for r in rows), sum(r[1] for r in rows), sum(r[2] for r in rows)
    seconds = _total([row[3] for row in rows])
    by_token = costs.dollars(prices, tokens_in, tokens_out) if prices.input or prices.output else None
    price = by_token if by_token is not None else _by_the_hour(seconds, hourly)
    return Spent(what, calls, tokens_in, tokens_out, seconds=seconds, dollars=price)


def _total(values: Sequence[float | None]) -> float | None:
    """Their sum; None if one of them is None, or if there are none."""
    return sum(values) if values and None not in values else None  # type: ignore[arg-type]


def _by_the_hour(seconds: float | None, hourly: float) -> float | None:
    return seconds / 3600 * hourly if seconds is not None and hourly else None
