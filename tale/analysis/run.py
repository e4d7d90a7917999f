"""Running an analysis: from searches' records to tables and plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tale.analysis.elasticity import (
    BudgetLevel,
    ModelSummary,
    QuestionSummary,
    budget_levels,
    curve_tables,
    model_tables,
    summarise_model,
    summarise_question,
    vanilla_correct,
)
from tale.analysis.paths import Iteration, Saving, iterations, saving, savings_table
from tale.analysis.plot import plot_elasticity, plot_paths, plot_savings
from tale.analysis.recipe import AnalyseRecipe
from tale.data.records import Record, read_records
from tale.errors import UserError
from tale.output.tables import files_of, write_rows
from tale.runs.compare import check_comparable, read_recipe, run_folder
from tale.runs.run import finish_run, lock_output, start_run
from tale.text import log_info, log_warning

TABLES = {
    BudgetLevel: "elasticity",
    QuestionSummary: "questions",
    ModelSummary: "models",
    Iteration: "iterations",
    Saving: "savings",
}
PLOTS = ("elasticity.png", "iterations.png", "savings.png")
OUTPUTS = (*files_of(*TABLES.values()), *PLOTS)


@dataclass(frozen=True)
class Searched:
    """A search: its records, and how it says it was run.

    `records` leaves out what was not searched, and what vanilla CoT answers wrong.
    """

    label: str
    records: list[Record]
    questions: int
    strategy: str
    shares: list[float]


def analyse(recipe: AnalyseRecipe) -> None:
    """Run an analysis recipe: tables on the terminal, and as CSV and JSON with the plots in the output folder.

    Raises:
        UserError: records that are missing, of runs that are not comparable, or with nothing searched in them.
    """
    searches = _read(recipe.records)
    with lock_output(recipe) as folder:
        start_run(recipe, outputs=OUTPUTS, reads=recipe.records)
        grids = [search for search in searches if search.strategy == "grid"]
        halved = [search for search in searches if search.strategy != "grid"]
        curves, models = _elasticity(grids, folder) if grids else ([], [])
        savings = _paths(halved, folder) if halved else []
        finish_run(folder)
    tables = [table for i, rows in enumerate(curves, 1) for table in curve_tables(str(i), list(map(vars, rows)), {})]
    tables += model_tables("", models) if models else []
    tables += [savings_table("", savings)] if savings else []
    for table in tables:
        table.show()
    if halved and not savings:
        log_info("no question has a target: nothing was saved")
    log_info(f"tables and plots: {folder}")


def labels_of(files: Sequence[str]) -> list[str]:
    """Each search's name in tables: the name of its folder, or its path if two have the same name."""
    names = [Path(file).parent.name for file in files]
    return [name if names.count(name) == 1 else str(Path(file).parent) for file, name in zip(files, names, strict=True)]


def _read(files: Sequence[str]) -> list[Searched]:
    if not files:
        raise UserError("records: none given; records=[runs/grid/records.jsonl]")
    if len(set(files)) < len(files):
        raise UserError("records: a file is given twice; give each once")
    folders = [run_folder(Path(file)) for file in files]
    check_comparable(folders)
    searches = []
    for file, folder, label in zip(files, folders, labels_of(files), strict=True):
        settings: dict[str, Any] = read_recipe(folder)
        if "strategy" not in settings:
            raise UserError(f"{folder / 'recipe.yaml'}: not of a search; give the records of scripts/search.py")
        records = read_records(Path(file))
        searched = vanilla_correct(records)
        if not searched:
            raise UserError(f"{file}: none of its {len(records)} questions was searched: no vanilla answer was right")
        searches.append(Searched(label, searched, len(records), settings["strategy"], settings["budget_fractions"]))
    return searches


def _elasticity(searches: Sequence[Searched], folder: Path) -> tuple[list[list[BudgetLevel]], list[ModelSummary]]:
    curves = [budget_levels(search.label, search.records, search.shares) for search in searches]
    each = [[summarise_question(search.label, record) for record in search.records] for search in searches]
    models = [
        summarise_model(s.label, s.records[0].budget_line, s.questions, c, e)
        for s, c, e in zip(searches, curves, each, strict=True)
    ]
    flat = [step for curve in curves for step in curve]
    write_rows(flat, folder, TABLES[BudgetLevel])
    write_rows([one for of in each for one in of], folder, TABLES[QuestionSummary])
    write_rows(models, folder, TABLES[ModelSummary])
    plot_elasticity(flat, folder / "elasticity.png")
    return curves, models


def _paths(searches: Sequence[Searched], folder: Path) -> list[Saving]:
    whole = [search for search in searches if not any(a.limit for record in search.records for a in record.attempts)]
    rows = [row for search in whole for record in search.records for row in iterations(search.label, record)]
    if rows:
        write_rows(rows, folder, TABLES[Iteration])
        plot_paths(rows, folder / "iterations.png")
    for search in searches:
        if search not in whole:
            log_warning(
                f"{search.label}: not among the paths (Fig 2), as answers were cut off where they could no longer be "
                "feasible; search with strategy=shortest_correct or full_answers=true"
            )
    savings = [found for search in searches if (found := saving(search.label, search.records))]
    if savings:
        write_rows(savings, folder, TABLES[Saving])
        plot_savings(savings, folder / "savings.png")
    return savings
