"""The cost ledger: tokens, time and price of every run and method, and after how many queries training has paid."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from tale.config.sections import PriceConfig
from tale.evaluation.replies import Reply, count_seeds, each_sampling
from tale.evaluation.run import reference
from tale.evaluation.seeds import by_question, sampling_of
from tale.inference import Completion, Request, costs
from tale.inference.journal import Journal, key_of
from tale.output import formats
from tale.output.formats import duration, whole
from tale.output.tables import Column, Interval
from tale.results.runs import EvaluationRun, Run, SearchRun, TrainRun, WordingsRun
from tale.solvers.base import Method
from tale.statistics import paired_difference


@dataclass(frozen=True)
class Spent:
    """What something took: tokens read, generated and trained on, and wall time in seconds; None is not known."""

    what: Annotated[str, Column("what")]
    calls: Annotated[int | None, Column("calls", whole)] = None
    tokens_in: Annotated[int | None, Column("tokens read", whole)] = None
    tokens_out: Annotated[int | None, Column("tokens generated", whole)] = None
    trained: Annotated[int | None, Column("tokens trained on", whole)] = None
    seconds: Annotated[float | None, Column("wall time", duration)] = None
    dollars: Annotated[float | None, Column("price", formats.dollars)] = None

    @property
    def tokens(self) -> int | None:
        """All tokens that went through the model; None where calls do not say what they read."""
        if self.calls and self.tokens_in is None:
            return None
        known = [count for count in (self.tokens_in, self.tokens_out, self.trained) if count is not None]
        return sum(known) if known else None


def spent_on_search(run: SearchRun, hourly: float) -> Spent:
    """All calls in its journals; without a journal the answers' tokens alone, from its records."""
    if run.journals:
        return _journaled("search", run.journals, run.recipe.prices, hourly)
    answers = [answer for r in run.records or () for attempt in (r.vanilla, *r.attempts) for answer in attempt.answers]
    return Spent("search", len(answers), tokens_out=sum(answer.tokens for answer in answers))


def spent_on_training(run: TrainRun, hourly: float) -> Spent:
    """Tokens and time as logged in its event files; validation counts in the time alone."""
    seconds = run.curves.seconds if run.curves.steps else None
    what = f"training, {run.recipe.objective.value.upper()}"
    return Spent(what, trained=run.curves.tokens, seconds=seconds, dollars=_by_the_hour(seconds, hourly))


def spent_on_answers(run: EvaluationRun | WordingsRun, hourly: float) -> Spent:
    """All calls in its journals: what methods share is there once."""
    what = "evaluation" if isinstance(run, EvaluationRun) else "wordings"
    return _journaled(what, run.journals, run.recipe.prices, hourly)


@dataclass(frozen=True)
class Query:
    """What one question costs with a method, its estimator's call apart; seconds are None where no journal has them.

    Wall time is the engine's, shared by all that is generated at the same time: not a single user's waiting time.
    """

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
        """Its price by the token where there is one, else by the hour."""
        if prices.input or prices.output:
            tokens_in, tokens_out = self.tokens_in + self.estimator_in, self.tokens_out + self.estimator_out
            return costs.dollars(prices, tokens_in, tokens_out)
        return _by_the_hour(self.all_seconds, hourly)


def queries(run: EvaluationRun, label: str) -> list[Query]:
    """One for each reply, in order."""
    replies = (run.replies or {})[label]
    answers, estimates = _times(run, replies, run.methods[label])
    return [
        Query(
            reply.prompt_tokens, reply.tokens, reply.estimator_prompt_tokens, reply.estimator_tokens,
            seconds, estimator_seconds,
        )
        for reply, seconds, estimator_seconds in zip(replies, answers, estimates, strict=True)
    ]  # fmt: skip


def spent_on_method(run: EvaluationRun, label: str, hourly: float) -> list[Spent]:
    """A method's own calls, as if it were asked alone; those of its estimator in a row of their own."""
    asked = queries(run, label)
    rows = [("", [(q.tokens_in, q.tokens_out, q.seconds) for q in asked])]
    if any(reply.estimator_text is not None for reply in (run.replies or {})[label]):
        rows.append((": its estimator", [(q.estimator_in, q.estimator_out, q.estimator_seconds) for q in asked]))
    return [_sum(f"{label}{part}", calls, run.recipe.prices, hourly) for part, calls in rows]


REFUSED = (Completion.refused("not journalled"), 0.0)  # a call that gave no answer


@dataclass(frozen=True)
class BreakEven:
    """What making a trained method took, what it saves a query, and the queries after which the two are equal.

    `unit` is tokens, seconds or dollars. Queries are infinite where nothing is saved; all is None where not known.
    """

    method: str
    unit: str
    search: float | None
    training: float | None
    saved: Interval | None
    queries: Interval | None


def break_even(run: EvaluationRun, label: str, runs: Sequence[Run], hourly: float) -> list[BreakEven]:
    """In tokens, seconds and dollars, against vanilla CoT, paired by question. Accuracy plays no part in it."""
    baseline = reference(run.recipe.methods)
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
        saved = Interval(*paired_difference(by_question(vanilla, seeds), by_question(ours, seeds)))  # type: ignore[arg-type]
    if saved and search is not None and training is not None:
        paid = search + training
        queries = Interval(*(_after(paid, saving) for saving in (saved.value, saved.high, saved.low)))
    return BreakEven(label, unit, search, training, saved, queries)


def _after(paid: float, saving: float) -> float:
    return math.ceil(paid / saving) if saving > 0 else math.inf


def _times(
    run: EvaluationRun, replies: Sequence[Reply], method: Method
) -> tuple[list[float | None], list[float | None]]:
    """Seconds of each answer, and of each estimator's call (0 where there was none)."""
    samplings = each_sampling(sampling_of(run.recipe), [reply.seed for reply in replies])
    keys = [key_of(Request.user(r.prompt, sampling)) for r, sampling in zip(replies, samplings, strict=True)]
    missing = [REFUSED if reply.error else None for reply in replies]
    found = (list(map(journal.answers.get, keys, missing)) for journal in _journals(run, method))
    answers = next((calls for calls in found if _are(calls, replies)), [None] * len(replies))
    # A reply does not keep what its estimator was asked, so its call is known by what it said.
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
    rows = [(completion.prompt_tokens, completion.tokens, seconds) for completion, seconds in calls]
    return _sum(what, rows, prices, hourly)


def _sum(what: str, calls: Sequence[tuple[int, int, float | None]], prices: PriceConfig, hourly: float) -> Spent:
    tokens_in, tokens_out = sum(call[0] for call in calls), sum(call[1] for call in calls)
    seconds = _total([call[2] for call in calls])
    by_token = costs.dollars(prices, tokens_in, tokens_out) if prices.input or prices.output else None
    price = by_token if by_token is not None else _by_the_hour(seconds, hourly)
    return Spent(what, len(calls), tokens_in, tokens_out, seconds=seconds, dollars=price)


def _total(values: Sequence[float | None]) -> float | None:
    """Their sum; unknown if one of them is, or if there is none."""
    return sum(values) if values and None not in values else None  # type: ignore[arg-type]


def _by_the_hour(seconds: float | None, hourly: float) -> float | None:
    return seconds / 3600 * hourly if seconds is not None and hourly else None
