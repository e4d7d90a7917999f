"""An analysis run: searches' records to tables and plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tale.analysis.elasticity import Model, Step, kept_right, model, one_question, steps
from tale.analysis.paths import Saving, iterations, saving
from tale.analysis.plot import plot_elasticity, plot_paths, plot_savings
from tale.analysis.recipe import AnalyseRecipe
from tale.data.records import Record, read_records
from tale.errors import UserError
from tale.output.tables import interval, show, shown, write_rows
from tale.runs.compare import check_comparable, read_recipe, run_folder
from tale.runs.run import finish_run, hold, start_run
from tale.text import say, warn

TABLES = ("elasticity", "questions", "models", "iterations", "savings")
PLOTS = ("elasticity.png", "iterations.png", "savings.png")
OUTPUTS = (*(f"{table}.{kind}" for table in TABLES for kind in ("csv", "json")), *PLOTS)


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
    with hold(recipe) as folder:
        start_run(recipe, outputs=OUTPUTS, reads=recipe.records)
        grids = [search for search in searches if search.strategy == "grid"]
        halved = [search for search in searches if search.strategy != "grid"]
        curve, models = _elasticity(grids, folder) if grids else ([], [])
        savings = _paths(halved, folder) if halved else []
        finish_run(folder)
    if grids:
        _show_curve(curve)
        _show_models(models)
    if halved:
        _show_savings(savings)
    say(f"tables and plots: {folder}")


def labels_of(files: Sequence[str]) -> list[str]:
    """What each search is called in tables: the name of its folder, with the way to it where two have one name."""
    names = [Path(file).parent.name for file in files]
    return [name if names.count(name) == 1 else str(Path(file).parent) for file, name in zip(files, names, strict=True)]


def _read(files: Sequence[str]) -> list[Searched]:
    if not files:
        raise UserError("records: none given; records=[runs/grid/records.jsonl]")
    if len(set(files)) < len(files):
        raise UserError("records: the same file twice")
    folders = [run_folder(Path(file)) for file in files]
    check_comparable(folders)
    searches = []
    for file, folder, label in zip(files, folders, labels_of(files), strict=True):
        settings: dict[str, Any] = read_recipe(folder)
        if "strategy" not in settings:
            raise UserError(f"{folder / 'recipe.yaml'}: not of a search; records are what scripts/search.py writes")
        records = read_records(Path(file))
        searched = kept_right(records)
        if not searched:
            raise UserError(f"{file}: none of its {len(records)} questions was searched: no vanilla answer was right")
        searches.append(Searched(label, searched, len(records), settings["strategy"], settings["grid"]))
    return searches


def _elasticity(searches: Sequence[Searched], folder: Path) -> tuple[list[Step], list[Model]]:
    curves = [steps(search.label, search.records, search.shares) for search in searches]
    each = [[one_question(search.label, record) for record in search.records] for search in searches]
    models = [
        model(s.label, s.records[0].budget_line, s.questions, c, e)
        for s, c, e in zip(searches, curves, each, strict=True)
    ]
    flat = [step for curve in curves for step in curve]
    write_rows(flat, folder, "elasticity")
    write_rows([one for of in each for one in of], folder, "questions")
    write_rows(models, folder, "models")
    plot_elasticity(flat, folder / "elasticity.png")
    return flat, models


def _show_curve(rows: Sequence[Step]) -> None:
    headings = ["records", "budget, × vanilla", "questions", "right % [95 %]", "asked", "used, tokens [95 %]",
                "× vanilla", "used / asked", "within budget %", "cut off %"]  # fmt: skip
    cells = [
        [
            r.records,
            "vanilla CoT" if r.share is None else f"{r.share:.4g}",
            str(r.questions),
            interval(r.accuracy, r.accuracy_low, r.accuracy_high, factor=100),
            shown(r.asked),
            interval(r.used, r.used_low, r.used_high),
            shown(r.used_share, 2),
            shown(r.adherence, 2),
            shown(r.within, factor=100),
            shown(r.cut_off, factor=100),
        ]
        for r in rows
    ]
    show(
        "Budget against tokens and accuracy, of the questions that vanilla CoT answers right (Table 8)", headings, cells
    )


def _show_models(rows: Sequence[Model]) -> None:
    headings = ["records", "asked for by", "questions", "searched", "with β*", "elasticity point", "elastic",
                "median point, tokens", "elastic questions %", "monotone % [95 %]",
                "from some budget up %"]  # fmt: skip
    cells = [
        [
            r.records,
            r.budget_line,
            str(r.questions),
            str(r.searched),
            str(r.with_star),
            f"{r.elasticity_point:.4g} × vanilla",
            "yes" if r.elastic else "no",
            shown(r.median_elasticity_point),
            shown(r.elastic_share, factor=100),
            interval(r.monotone_share, r.monotone_low, r.monotone_high, factor=100),
            shown(r.threshold_share, factor=100),
        ]
        for r in rows
    ]
    show("Token elasticity and monotonicity (§3, Table 2)", headings, cells)


def _paths(searches: Sequence[Searched], folder: Path) -> list[Saving]:
    whole = [search for search in searches if not any(a.limit for record in search.records for a in record.attempts)]
    rows = [row for search in whole for record in search.records for row in iterations(search.label, record)]
    if rows:
        write_rows(rows, folder, "iterations")
        plot_paths(rows, folder / "iterations.png")
    for search in searches:
        if search not in whole:
            warn(
                f"{search.label}: not among the paths (Fig 2), as answers were cut off where they could no longer be "
                "feasible; search with strategy=minimum or full_answers=true"
            )
    savings = [found for search in searches if (found := saving(search.label, search.records))]
    if savings:
        write_rows(savings, folder, "savings")
        plot_savings(savings, folder / "savings.png")
    return savings


def _show_savings(savings: Sequence[Saving]) -> None:
    if not savings:
        say("no question has a target: nothing was saved")
        return
    cells = [
        [
            s.records,
            str(s.questions),
            shown(s.vanilla),
            shown(s.searched),
            interval(s.difference, s.difference_low, s.difference_high, sign="+"),
            shown(s.searched / s.vanilla, 2),
        ]
        for s in savings
    ]
    headings = ["records", "questions", "vanilla CoT", "searched budget", "difference [95 %]", "× vanilla"]
    show("Tokens under the searched budget, of questions that both answer right (Fig 3)", headings, cells)
