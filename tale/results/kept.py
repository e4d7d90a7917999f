"""What lasts: each method over the benchmarks of several evaluations, and over trainings that differ in their seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tale.config.recipes import to_yaml
from tale.config.training import TrainRecipe
from tale.data.question import METRICS
from tale.evaluation.replies import Reply
from tale.evaluation.run import baseline_of
from tale.evaluation.summary import RESULTS, Row, summarise
from tale.output.tables import Column, Table, columns_of, table_of
from tale.results.blocks import Section, Text
from tale.results.runs import EvaluationRun, Run
from tale.solvers.base import Method

COLUMNS = {
    "method": RESULTS["method"],
    "benchmark": Column("benchmark"),
    "run": Column("run"),
    "model": Column("model"),
    **columns_of(
        Row, "questions", *(f"{metric}{part}" for metric in METRICS for part in ("", "_difference")), "output_tokens",
        "tokens_ratio", "repetition", "repetition_difference",
    ),
}  # fmt: skip
NOTE = (
    "Each row is paired with vanilla CoT of its own run, question by question; intervals as in the runs' own tables, "
    "which also have those of the tokens. Repeated 4-grams: the mean over answers of the share that stood there before."
)


def kept_section(evaluations: Sequence[tuple[EvaluationRun, Sequence[Row]]]) -> Section | None:
    """One row per method and evaluation, grouped by method; None if fewer than two evaluations have results."""
    found = [(run, row) for run, rows in evaluations for row in rows]
    if len({run.name for run, _ in found}) < 2:
        return None
    methods = list(dict.fromkeys(row.method for _, row in found))
    found.sort(key=lambda pair: methods.index(pair[1].method))
    models = len({run.model for run, _ in found}) > 1
    unclear = len({run.recipe.task.name for run, _ in found}) < len({run.name for run, _ in found})
    rows = [
        {
            **vars(row),
            "benchmark": run.recipe.task.name,
            "run": run.name if unclear else None,
            "model": run.model if models else None,
        }
        for run, row in found
    ]
    table = table_of("kept", "Methods by benchmark; in brackets 95 % intervals", COLUMNS, rows)
    return Section("kept", "What is kept on other benchmarks", [table, Text(NOTE)])


def over_seeds(run: EvaluationRun, runs: Sequence[Run]) -> list[Table]:
    """Adapters whose trainings, of those given, differ only in their seed, pooled as one method; maybe none."""
    alike: dict[str, list[str]] = {}
    for label, method in run.methods.items() if run.replies else ():
        if training := run.training(method, runs):
            alike.setdefault(_but_for_the_seed(training.recipe, method), []).append(label)
    together = {f"{len(of)} trainings: {', '.join(of)}": of for of in alike.values() if len(of) > 1}
    baseline, replies = baseline_of(run.recipe.methods), run.replies or {}
    pooled = {joint: _pooled(joint, [replies[label] for label in labels]) for joint, labels in together.items()}
    if not pooled:
        return []
    pooled |= {baseline: replies[baseline]} if baseline else {}
    rows = summarise(pooled, baseline, run.recipe.prices, run.recipe.noninferiority_margin / 100)
    caption = "Trainings that differ in their seed alone, together: means over all their answers, SD of their means"
    return [table_of(f"seeds-{run.slug}", caption, RESULTS, [row for row in rows if row.method in together])]


def _but_for_the_seed(recipe: TrainRecipe, method: Method) -> str:
    """Equal for methods with the same options on trainings that differ in their seed alone."""
    trained = to_yaml(replace(recipe, output="", resume=None, train=replace(recipe.train, seed=0)))
    return f"{trained}{replace(method, adapter=None, label=None)}"


def _pooled(joint: str, trainings: Sequence[Sequence[Reply]]) -> list[Reply]:
    """Replies of several trainings as those of one method with as many seeds."""
    numbers: dict[tuple[int, int | None], int] = {}
    return [
        replace(reply, method=joint, seed=numbers.setdefault((i, reply.seed), len(numbers)))
        for i, replies in enumerate(trainings)
        for reply in replies
    ]
