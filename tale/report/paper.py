"""Runs in the form of the paper's Tables 3 to 6, with the paper's own figures under those of the same benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tale.config import MethodKind
from tale.evaluation.summary import Row
from tale.report.blocks import Column, Section, Table, Text, two_digits
from tale.report.runs import EvaluationRun, Run

METHODS = {
    "direct": "Directly answering",
    "vanilla": "Vanilla CoT",
    "estimated": "TALE-EP",
    "sft": "TALE-PT-SFT",
    "dpo": "TALE-PT-DPO",
}
FIGURES = {
    "accuracy": ("acc., %", lambda share: f"{100 * share:.2f}"),
    "output_tokens": ("tokens", two_digits),
    "expense": ("expense, 10⁻⁵ $", two_digits),
}
NOTE = (
    "The paper's figures are shown as printed; its official code divides the tokens by the right answers alone and "
    "counts them with GPT-4's tokenizer. Rows of different models are to be looked at together, not to be compared."
)

Cells = dict[str, dict[str, float | None]]


def paper_section(evaluations: Sequence[tuple[EvaluationRun, Sequence[Row]]], runs: Sequence[Run]) -> Section | None:
    """One table of all evaluations that have results; None where there are none."""
    rows: list[tuple[str, Cells]] = []
    shown: set[int] = set()
    for run, summary in evaluations:
        if summary:
            name = run.recipe.benchmark.name
            rows.append(
                (f"{name}: {run.model}, {summary[0].questions} questions ({run.name})", _ours(run, summary, runs))
            )
            own = [(i, entry) for i, entry in enumerate(_paper()) if _same(entry["benchmark"], name) and i not in shown]
            rows += [(f"{name}: the paper, {entry['model']} ({entry['table']})", _theirs(entry)) for _, entry in own]
            shown |= {i for i, _ in own}
    if not rows:
        return None
    used = [
        (method, figure)
        for method in METHODS
        for figure in FIGURES
        if any(cells.get(method, {}).get(figure) is not None for _, cells in rows)
    ]
    columns = [Column("run", "data and model")]
    columns += [Column(f"{m}_{f}", FIGURES[f][0], FIGURES[f][1], METHODS[m]) for m, f in used]
    values = [[label, *(cells.get(m, {}).get(f) for m, f in used)] for label, cells in rows]
    table = Table("paper", "Accuracy, output tokens and expense", columns, values)
    text = NOTE if shown else "The paper has no figures for these benchmarks."
    return Section("paper", "In the form of the paper's Tables 3 to 6", [table, Text(text)])


def place_of(run: EvaluationRun, label: str, runs: Sequence[Run]) -> str | None:
    """The column of a method; None where the paper's tables have none, or the training of its adapter is not given."""
    method = run.methods[label]
    if method.adapter:
        training = run.training(method, runs)
        plain = method.kind is MethodKind.vanilla and training
        return training.recipe.objective.value if plain else None
    kind = method.kind.value
    return kind if kind in METHODS and method.alpha == 1 else None


def _ours(run: EvaluationRun, rows: Sequence[Row], runs: Sequence[Run]) -> Cells:
    cells: Cells = {}
    for row in rows:
        place = place_of(run, row.method, runs)
        if place and place not in cells:
            cells[place] = {figure: getattr(row, figure) for figure in FIGURES}
    return cells


def _theirs(entry: dict[str, Any]) -> Cells:
    figures = {method: dict(zip(FIGURES, entry[method], strict=False)) for method in METHODS if method in entry}
    return {method: {**values, "accuracy": values["accuracy"] / 100} for method, values in figures.items()}


def _same(benchmark: str, name: str) -> bool:
    """MathBench is a benchmark in each language here; the paper does not say which it used."""
    return name.removesuffix("_en").removesuffix("_cn") == benchmark


def _paper() -> list[dict[str, Any]]:
    return yaml.safe_load(Path(__file__).with_name("paper.yaml").read_text(encoding="utf-8"))
