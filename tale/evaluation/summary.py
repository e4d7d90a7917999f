"""From replies to the numbers of the paper's tables, and to the tables that show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Annotated, Any

from tale.config.sections import PriceConfig
from tale.data.question import METRICS
from tale.evaluation.repetition import repetition
from tale.evaluation.replies import Reply, count_seeds
from tale.evaluation.seeds import mean_over_seeds, std_over_seeds
from tale.grading import UNMARKED
from tale.grading.bleu import corpus_bleu
from tale.inference.costs import dollars
from tale.output.formats import number, p_value, percent, points, signed, three_digits, two_digits, whole
from tale.output.tables import Column, Table, columns_of, table_of
from tale.statistics import (
    UNKNOWN,
    Bounded,
    Paired,
    Verdict,
    bootstrap_mean,
    compare_paired,
    mean_share,
    paired_difference,
)


def field_of(way: str) -> str:
    """The field of `Row` with the share of the answers that were read in this way (one of `UNMARKED`)."""
    return f"by_{way.replace('-', '_')}"


def read_by(way: str) -> Column:
    """The column of such a field."""
    return Column(f"read by {UNMARKED[way]}, %", percent, blank=0)


@dataclass(frozen=True)
class Row:
    """One method over one set of questions. Shares and differences are fractions, tokens are means over *all* samples.

    `*_low`/`*_high` bound 95 % intervals; differences are to the reference method, paired by question, and None for
    the reference itself; `tokens_ratio` also where the reference generated nothing. `not_answered` replies count as
    wrong and as no tokens. `expense` is in 10⁻⁵ dollars a sample, as in the paper, None where no price is given.
    `mcnemar_p` is of the difference in accuracy; `within_margin` says whether that is less than `margin` to the worse
    (`tale.statistics`), and `questions_needed` how many questions would be enough to show it. `in_format` is the share
    of answers in `[[ ]]`, each `by_…` that of those read in another way (`tale.grading.reading`).

    Over open-ended questions there is no accuracy, nor what is derived from it: `bleu` is the mean of the sentences',
    from 0 to 1, and `corpus_bleu` that of all n-grams together.

    `repetition` is the mean of the answers' repeated shares (`tale.evaluation.repetition`). Over the answers whose
    prompt states a budget, `budget_error` is the mean of |tokens − budget| / budget, `over_budget` the share above it.

    With several seeds all is over every seed's replies, intervals are over questions, and `seeds` is their number; each
    `…_spread` is the standard deviation of the seeds' means.
    """

    method: Annotated[str, Column("method")]
    questions: Annotated[int, Column("questions", whole)]
    accuracy: Annotated[float | None, Column("accuracy, %", percent)]
    accuracy_low: float | None
    accuracy_high: float | None
    accuracy_difference: Annotated[float | None, Column("Δ to vanilla, points", points)]
    accuracy_difference_low: float | None
    accuracy_difference_high: float | None
    output_tokens: Annotated[float, Column("output tokens", number)]
    estimator_tokens: Annotated[float, Column("estimator's tokens", number, blank=0)]
    tokens_difference: Annotated[float | None, Column("Δ to vanilla, tokens", number)]
    tokens_difference_low: float | None
    tokens_difference_high: float | None
    tokens_ratio: Annotated[float | None, Column("× vanilla", two_digits)]
    truncated: Annotated[float, Column("cut off, %", percent)]
    in_format: Annotated[float, Column("answer in [[ ]], %", percent)]
    asked_without_budget: Annotated[int, Column("asked without a budget", whole, blank=0)]
    expense: Annotated[float | None, Column("expense, 10⁻⁵ $", two_digits)]
    expense_difference: float | None = None
    expense_difference_low: float | None = None
    expense_difference_high: float | None = None
    mcnemar_p: Annotated[float | None, Column("McNemar p", p_value)] = None
    margin: Annotated[float | None, Column("margin, points", percent)] = None
    within_margin: Annotated[Verdict | None, Column("no worse by the margin")] = None
    questions_needed: int | None = None
    bleu: Annotated[float | None, Column("BLEU", three_digits)] = None
    bleu_low: float | None = None
    bleu_high: float | None = None
    bleu_difference: Annotated[float | None, Column("Δ to vanilla, BLEU", signed)] = None
    bleu_difference_low: float | None = None
    bleu_difference_high: float | None = None
    corpus_bleu: Annotated[float | None, Column("corpus BLEU", three_digits)] = None
    by_boxed: Annotated[float | None, read_by("boxed")] = None
    by_named: Annotated[float | None, read_by("named")] = None
    by_number: Annotated[float | None, read_by("number")] = None
    by_letter: Annotated[float | None, read_by("letter")] = None
    by_whole_reply: Annotated[float | None, read_by("whole-reply")] = None
    seeds: Annotated[int | None, Column("seeds", whole, optional=True)] = None
    accuracy_spread: Annotated[float | None, Column("SD of seeds, points", percent, optional=True)] = None
    bleu_spread: Annotated[float | None, Column("SD of seeds, BLEU", three_digits, optional=True)] = None
    output_tokens_spread: Annotated[float | None, Column("SD of seeds, tokens", number, optional=True)] = None
    not_answered: Annotated[int | None, Column("not answered", whole, optional=True)] = None
    repetition: Annotated[float | None, Column("repeated 4-grams, %", percent)] = None
    repetition_difference: Annotated[float | None, Column("Δ to vanilla, points", points)] = None
    repetition_difference_low: float | None = None
    repetition_difference_high: float | None = None

    budget_error: Annotated[float | None, Column("off the budget asked for, %", percent, optional=True)] = None
    over_budget: Annotated[float | None, Column("over it, %", percent, optional=True)] = None

    @property
    def metric(self) -> str:
        """What answers are scored by, one of `METRICS`."""
        return next(name for name in METRICS if getattr(self, name) is not None)

    @property
    def score(self) -> tuple[Any, Any, Any]:
        """The mean by its metric, with the ends of its interval."""
        return getattr(self, self.metric), getattr(self, f"{self.metric}_low"), getattr(self, f"{self.metric}_high")


RESULTS = columns_of(
    Row, "method", *(f"{metric}{part}" for metric in METRICS for part in ("", "_spread", "_difference")),
    "corpus_bleu", "output_tokens", "output_tokens_spread", "tokens_difference", "tokens_ratio", "expense", "mcnemar_p",
    "margin", "within_margin",
)  # fmt: skip
ANSWERS = columns_of(
    Row, "method", "estimator_tokens", "asked_without_budget", "not_answered", "truncated", "budget_error",
    "over_budget", "in_format",
    *map(field_of, UNMARKED), "repetition", "repetition_difference",
)  # fmt: skip


def metric_name(metric: str) -> str:
    """The metric in a heading or a sentence."""
    return "Accuracy" if metric == "accuracy" else RESULTS[metric].heading


def summarise(
    replies: dict[str, list[Reply]], baseline: str | None, prices: PriceConfig, margin: float = 0.03
) -> list[Row]:
    """One row per method; `replies[method]` have the same questions in the same order, `margin` is a share."""
    rows = {method: _alone(of, prices) for method, of in replies.items()}
    if baseline is None or baseline not in replies:
        return list(rows.values())
    return [
        row if method == baseline else _compared(row, replies[method], replies[baseline], prices, margin)
        for method, row in rows.items()
    ]


def _alone(replies: list[Reply], prices: PriceConfig) -> Row:
    """The figures of one method, without differences."""
    metric, seeds = replies[0].metric, count_seeds(replies)
    more: dict[str, Any] = {field_of(way): fmean(r.via == way for r in replies) for way in UNMARKED}
    if asked := [(r.tokens, r.budget) for r in replies if r.budget and not r.total_budget]:
        more["budget_error"] = fmean(abs(used - budget) / budget for used, budget in asked)
        more["over_budget"] = fmean(used > budget for used, budget in asked)
    if metric != "accuracy":
        more |= bounds(metric, mean_score(replies))
    if metric == "bleu":
        more["corpus_bleu"] = corpus_bleu([r.value for r in replies], [str(r.reference) for r in replies])
    if seeds > 1:
        more |= _spreads(replies, seeds)
    return Row(
        replies[0].method, len(replies) // seeds, *(mean_score(replies) if metric == "accuracy" else UNKNOWN), *UNKNOWN,
        fmean(r.output_tokens for r in replies), fmean(r.estimator_tokens for r in replies), *UNKNOWN, None,
        truncated=fmean(r.finish == "length" for r in replies),
        in_format=fmean(r.via == "brackets" for r in replies),
        asked_without_budget=sum(r.fallback is not None for r in replies),
        not_answered=sum(r.finish == "error" for r in replies) or None,
        repetition=fmean(_repeated(replies)),
        expense=fmean(expense(r, prices) for r in replies) if priced(prices) else None,
        **more,
    )  # fmt: skip


def _spreads(replies: list[Reply], seeds: int) -> dict[str, Any]:
    """Standard deviations of the seeds' means."""
    tokens = [r.output_tokens for r in replies]
    return {
        "seeds": seeds,
        f"{replies[0].metric}_spread": std_over_seeds([r.score for r in replies], seeds),
        "output_tokens_spread": std_over_seeds(tokens, seeds),
    }


def mean_score(replies: list[Reply]) -> tuple[float, float, float]:
    """The mean by its metric, with its interval."""
    return (mean_share if replies[0].metric == "accuracy" else bootstrap_mean)(scores_of(replies))


def scores_of(replies: list[Reply]) -> list[float]:
    """Each question's score: its share of right answers, or the mean of another metric."""
    return mean_over_seeds([r.score for r in replies], count_seeds(replies))


def _repeated(replies: list[Reply]) -> list[float]:
    """Each question's share of repeated 4-grams."""
    return mean_over_seeds([repetition(r.text) for r in replies], count_seeds(replies))


def tokens_of(replies: list[Reply]) -> list[float]:
    """Each question's output tokens."""
    return mean_over_seeds([r.output_tokens for r in replies], count_seeds(replies))


def _compared(row: Row, ours: list[Reply], theirs: list[Reply], prices: PriceConfig, margin: float) -> Row:
    """The row with its differences to the baseline, `theirs`."""
    differences = bounds("tokens_difference", paired_difference(tokens_of(ours), tokens_of(theirs)))
    differences |= bounds("repetition_difference", paired_difference(_repeated(ours), _repeated(theirs)))
    differences |= bounds(f"{row.metric}_difference", score_difference(ours, theirs))
    if row.metric == "accuracy":
        differences |= _verdict(ours, theirs, margin)
    if priced(prices):
        costs = [mean_over_seeds([expense(r, prices) for r in side], count_seeds(side)) for side in (ours, theirs)]
        differences |= bounds("expense_difference", paired_difference(*costs))
    reference = fmean(r.output_tokens for r in theirs)
    return replace(row, **differences, tokens_ratio=row.output_tokens / reference if reference else None)


def _verdict(ours: list[Reply], theirs: list[Reply], margin: float) -> dict[str, Any]:
    paired = compare_paired(scores_of(ours), scores_of(theirs))
    return {
        "mcnemar_p": paired.mcnemar() if isinstance(paired, Paired) and count_seeds(ours) == 1 else None,
        "margin": margin,
        "within_margin": paired.not_worse(margin),
        "questions_needed": paired.questions_needed(margin),
    }


def score_difference(ours: list[Reply], theirs: list[Reply]) -> Bounded:
    """The difference of the means by their metric, paired by question, with its interval."""
    if ours[0].metric != "accuracy":
        return paired_difference(scores_of(ours), scores_of(theirs))
    paired = compare_paired(scores_of(ours), scores_of(theirs))
    return paired.difference, *paired.interval()


def bounds(name: str, values: Bounded) -> dict[str, Any]:
    """The fields of a figure and of its interval's ends."""
    return {f"{name}{end}": value for end, value in zip(("", "_low", "_high"), values, strict=True)}


def priced(prices: PriceConfig) -> bool:
    """Whether there is a price."""
    return bool(prices.input or prices.output)


def expense(reply: Reply, prices: PriceConfig) -> float:
    """10⁻⁵ dollars for one sample; prices are dollars per million tokens."""
    prompt_tokens = reply.prompt_tokens + reply.estimator_prompt_tokens
    return dollars(prices, prompt_tokens, reply.output_tokens) * 1e5


def tables(
    rows: Sequence[Any], about: str, name: str = "results", more: Mapping[str, Column] | None = None
) -> list[Table]:
    """What rows show: the results of methods, and how their answers came about, with `more` columns there."""
    return [
        table_of(name, f"{about}; in brackets 95 % intervals", RESULTS, rows),
        table_of(f"{name}-answers", "How the answers came about", {**ANSWERS, **(more or {})}, rows),
    ]
