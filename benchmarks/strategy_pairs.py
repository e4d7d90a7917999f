"""Is one strategy better than others at equal budgets? Paired by question, from the replies of an evaluation.

    python scripts/evaluate.py recipe=strategies_qwen
    python benchmarks/strategy_pairs.py run=runs/strategies_qwen [strategy=Self-consistency]

For every other strategy, prints the difference of its accuracy to that of `strategy` in points, on average over all B
and at each B, and the difference of the mean gain (docs/concepts.md, anytime indices) in points per 100 tokens;
positive where the other one is better. Its second line, "while it runs", has the answers that its run at the largest B
had by so many tokens, as if it were interrupted there. In brackets 95 % intervals: at one B the score interval, else a
bootstrap over questions. Writes the figures to runs/benchmarks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
from report import publish
from words import only

from tale.cli import guarded
from tale.errors import UserError
from tale.evaluation.anytime import Shares, gain_index, quality_at, runs_by_strategy
from tale.evaluation.summary import bounds, scores_of
from tale.output.formats import written
from tale.output.tables import Column, table_of
from tale.results.runs import EvaluationRun, read_runs
from tale.statistics import bootstrap_rows, compare_paired

POINTS = written("+,.1f", 100)


def main() -> None:
    own = only({"run": "runs/strategies_qwen", "strategy": "Self-consistency"})
    budgets, shares = finished(own["run"])
    if (name := own["strategy"]) not in shares:
        raise UserError(f"strategy={name}: the run has {', '.join(shares)}")
    rows = [{"strategy": other, **beside(of, shares[name], budgets)} for other, of in shares.items() if other != name]
    columns = {"mean": Column("mean over B", POINTS), "gain": Column("mean gain in 100 tokens", written("+,.2f", 100))}
    columns |= {f"B = {budget}": Column(f"B = {budget}", POINTS) for budget in budgets}
    caption = f"{own['run']}: points above {name} at equal budgets; in brackets 95 % intervals"
    table_of("pairs", caption, {"strategy": Column("strategy"), **columns}, rows).show()
    publish("strategy_pairs", {"run": own["run"], "against": name, "rows": rows})


def finished(folder: str) -> tuple[list[int], dict[str, Shares]]:
    """The budgets of an evaluation, and each strategy's scores [questions, budgets].

    Raises:
        UserError: the folder has no finished evaluation of strategies at the same budgets, or one without accuracy.
    """
    (run,) = read_runs([folder])
    replies = run.replies if isinstance(run, EvaluationRun) else None
    strategies = runs_by_strategy(list(run.methods.values())) if replies and isinstance(run, EvaluationRun) else {}
    several = {tuple(sorted(each)) for each in strategies.values()}
    if not replies or len(several) != 1:
        raise UserError(f"run={folder}: has no finished evaluation of strategies at the same budgets")
    if any(reply.metric != "accuracy" for of in replies.values() for reply in of):
        raise UserError(f"run={folder}: its task is open-ended, and such answers have no accuracy")
    budgets = [*several.pop()]
    shares: dict[str, Shares] = {}
    for name, each in strategies.items():
        shares[name] = numpy.array([scores_of(replies[each[budget]]) for budget in budgets]).T
        shares[f"{name}, while it runs"] = quality_at(replies[each[budgets[-1]]], budgets)
    return budgets, shares


def beside(ours: Shares, theirs: Shares, budgets: Sequence[int]) -> dict[str, Any]:
    """The differences, with their intervals."""
    row: dict[str, Any] = {}
    for budget, mine, other in zip(budgets, ours.T, theirs.T, strict=True):
        paired = compare_paired(mine, other)
        row |= bounds(f"B = {budget}", (paired.difference, *paired.interval()))
    row |= bounds("mean", bootstrap_rows(ours - theirs, lambda means: means.mean(axis=-1)))
    # The index is linear in the accuracies, so that of the differences is the difference of the indices.
    return row | bounds("gain", bootstrap_rows(ours - theirs, lambda means: 100 * gain_index(means, budgets)))


if __name__ == "__main__":
    guarded(main, __doc__)
