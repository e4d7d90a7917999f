"""Writing a report: read runs, build sections, write the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os.path import realpath
from pathlib import Path

from tale.errors import UserError
from tale.output.tables import Column, table_of
from tale.results.analysis import analysis_section
from tale.results.blocks import Block, Folded, Section, Text
from tale.results.costs import costs_section
from tale.results.estimators import estimators_section
from tale.results.evaluation import evaluation_section, rows_of
from tale.results.kept import kept_section, over_seeds
from tale.results.left_out import left_out_section
from tale.results.page import outputs_of, write_page
from tale.results.paper import paper_section
from tale.results.recipe import ReportRecipe
from tale.results.runs import (
    AnalysisRun,
    EstimateRun,
    EvaluationRun,
    Run,
    SearchRun,
    ServeRun,
    TrainRun,
    WordingsRun,
    read_runs,
)
from tale.results.search import search_section
from tale.results.serving import serving_section
from tale.results.training import training_section
from tale.results.wordings import wordings_section
from tale.runs.compare import check_comparable
from tale.runs.run import finish_run, lock_output, start_run
from tale.secrets import redact
from tale.text import log_info

KINDS = {SearchRun: "search", TrainRun: "training", EvaluationRun: "evaluation"}
KINDS |= {AnalysisRun: "analysis", EstimateRun: "estimators", WordingsRun: "wordings", ServeRun: "serving"}
COLUMNS = {
    "run": Column("run"),
    "kind": Column("kind"),
    "model": Column("model"),
    "commit": Column("commit"),
    "machine": Column("machine"),
    "python": Column("Python"),
}


def report(recipe: ReportRecipe) -> Path:
    """Write the page of a report's runs; its file.

    Raises:
        UserError: a folder is missing, a file of a run is damaged, or evaluations decode or grade differently; nothing
            is written then.
    """
    runs, output = read_runs(recipe.runs), Path(recipe.output)
    if any(realpath(output) == realpath(run.folder) for run in runs):
        raise UserError(f"output={recipe.output}: is one of the runs; choose a separate folder for the report")
    evaluations = [(run, rows_of(run)) for run in runs if isinstance(run, EvaluationRun)]
    check_comparable([run.folder for run, rows in evaluations if rows])
    joint = (kept_section(evaluations), paper_section(evaluations, runs))
    sections = [
        *(evaluation_section(run, rows, recipe.examples, over_seeds(run, runs)) for run, rows in evaluations),
        *(section for section in joint if section),
        costs_section(runs, recipe.price_per_hour),
        *(search_section(run) for run in runs if isinstance(run, SearchRun)),
        *(wordings_section(run) for run in runs if isinstance(run, WordingsRun)),
        *(analysis_section(run) for run in runs if isinstance(run, AnalysisRun)),
        *(estimators_section(run) for run in runs if isinstance(run, EstimateRun)),
        *(training_section(run) for run in runs if isinstance(run, TrainRun)),
        *(serving_section(run) for run in runs if isinstance(run, ServeRun)),
        left_out_section(runs),
        what_was_run(runs),
    ]
    with lock_output(recipe):
        start_run(recipe, outputs=outputs_of(sections))
        page = write_page(f"tale: report of {len(runs)} run{'s' * (len(runs) > 1)}", sections, output)
        finish_run(output)
    log_info(f"report: {page}")
    return page


def what_was_run(runs: Sequence[Run]) -> Section:
    """Model, versions, commit and machine of each run, with its resolved recipe and run.json as they are."""
    rows = [
        {
            **run.identity,
            "run": run.name,
            "kind": KINDS.get(type(run)),
            "model": run.model if "base" in run.identity else None,
        }
        for run in runs
    ]
    blocks: list[Block] = [table_of("runs", "Runs", COLUMNS, rows)]
    for run in runs:
        if type(run) is Run:
            what = "its recipe.yaml is none of them" if run.yaml else "it has no recipe.yaml"
            known = "a search, a training, an evaluation, wordings, an analysis, estimators or a proxy"
            blocks.append(Text(f"{run.name} is not {known}: {what}.", warning=True))
        if run.yaml:
            blocks.append(Folded(f"{run.name}: resolved recipe", redact(run.yaml)))
        if run.identity:
            identity = json.dumps(run.identity, indent=1, ensure_ascii=False)
            blocks.append(Folded(f"{run.name}: command, versions, commit, machine", redact(identity)))
    return Section("runs", "What was run", blocks)
