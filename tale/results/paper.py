"""Runs in the form of the paper's Tables 3 to 7, with the paper's own figures under those of the same benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from tale.data.question import METRICS
from tale.evaluation.summary import RESULTS, Row, metric_name
from tale.output.formats import two_digits, written
from tale.output.tables import Column, table_of
from tale.results.blocks import Section, Text
from tale.results.runs import EvaluationRun, Run

METHODS = {
    "direct": "Directly answering",
    "vanilla": "Vanilla CoT",
    "tale_ep": "TALE-EP",
    "sft": "TALE-PT-SFT",
    "dpo": "TALE-PT-DPO",
}
FIGURES = {
    **{metric: (RESULTS[metric].heading, RESULTS[metric].show) for metric in METRICS if metric != "accuracy"},
    "accuracy": ("acc., %", written(",.2f", 100)),
    "output_tokens": ("tokens", two_digits),
    "expense": ("expense, 10⁻⁵ $", two_digits),
}
NOTE = (
    "The paper's figures are shown as printed; its official code divides the tokens by the right answers alone and "
    "counts them with GPT-4's tokenizer. Rows of different models are to be looked at together, not to be compared."
)
BLEU_NOTE = (
    "The paper's figures are shown as printed. With which model, prompts and kind of BLEU they were made is not known "
    "here, and its official code has none of it. Rows are to be looked at together, not to be compared."
)

Cells = dict[str, dict[str, float | None]]


def paper_section(evaluations: Sequence[tuple[EvaluationRun, Sequence[Row]]], runs: Sequence[Run]) -> Section | None:
    """One table of all evaluations that have results; None if there are none."""
    rows: list[tuple[str, Cells]] = []
    shown: set[int] = set()
    for run, summary in evaluations:
        if summary:
            name = run.recipe.task.name
            theirs = name.removesuffix("_en").removesuffix("_cn")  # the paper does not say which language it used
            rows.append(
                (f"{name}: {run.model}, {summary[0].questions} questions ({run.name})", _ours(run, summary, runs))
            )
            own = [
                (i, entry)
                for i, entry in enumerate(paper()["methods"])
                if entry["benchmark"] == theirs and i not in shown
            ]
            rows += [(f"{name}: the paper, {entry['model']} ({entry['table']})", _theirs(entry)) for _, entry in own]
            shown |= {i for i, _ in own}
    if not rows:
        return None
    columns = {f"{m}_{f}": Column(*FIGURES[f], METHODS[m]) for m, f in product(METHODS, FIGURES)}
    values = [
        {"run": label, **{f"{m}_{f}": value for m, figures in cells.items() for f, value in figures.items()}}
        for label, cells in rows
    ]
    metric = next(summary[0].metric for _, summary in evaluations if summary)  # the same in all of a report
    tables, note = ("Tables 3 to 6", NOTE) if metric == "accuracy" else ("Table 7", BLEU_NOTE)
    columns = {"run": Column("data and model"), **columns}
    table = table_of("paper", f"{metric_name(metric)}, output tokens and expense", columns, values)
    text = note if shown else "The paper has no figures for these benchmarks."
    return Section("paper", f"In the form of the paper's {tables}", [table, Text(text)])


def place_of(run: EvaluationRun, label: str, runs: Sequence[Run]) -> str | None:
    """The column of a method; None if the paper's tables have none, or the training of its adapter is not given."""
    method = run.methods[label]
    if method.adapter:
        training = run.training(method, runs)
        return training.recipe.objective.value if training and method.kind == "vanilla" else None
    return method.kind if method.kind in METHODS and getattr(method, "budget_multiplier", 1) == 1 else None


def _ours(run: EvaluationRun, rows: Sequence[Row], runs: Sequence[Run]) -> Cells:
    cells: Cells = {}
    for row in rows:
        place = place_of(run, row.method, runs)
        if place and place not in cells:
            cells[place] = {figure: getattr(row, figure) for figure in FIGURES}
    return cells


def _theirs(entry: dict[str, Any]) -> Cells:
    """BLEU as printed; accuracy as a share."""
    score, factor = ("bleu", 1) if entry.get("bleu") else ("accuracy", 100)
    names = (score, "output_tokens", "expense")
    figures = {method: dict(zip(names, entry[method], strict=False)) for method in METHODS if method in entry}
    return {method: {**values, score: values[score] / factor} for method, values in figures.items()}


@cache
def paper() -> dict[str, Any]:
    """All figures of the paper that a page shows."""
    return yaml.safe_load(Path(__file__).with_name("paper.yaml").read_text(encoding="utf-8"))
