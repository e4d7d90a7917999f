"""Running a comparison of wordings: every model on every task with every wording and budget; tables and figures."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from tale.data import prompts
from tale.data.question import Question
from tale.data.splits import split_by_context, uncontaminated
from tale.errors import UserError
from tale.evaluation.replies import Reply, graded_reply
from tale.inference import Request, Sampling, complete
from tale.inference.build import AnyModel, check_engine, engines, find_model, journal_folder
from tale.inference.context_length import check_context_length
from tale.inference.journal import JournaledEngine
from tale.models.adapters import read_card
from tale.output.tables import files_of, write_rows
from tale.runs.run import finish_run, lock_output, start_run
from tale.solvers.base import Call, Solution
from tale.storage.files import write_jsonl_atomic
from tale.tasks.selection import metric_of, select_questions
from tale.text import log_info, log_warning
from tale.wordings.plot import plot
from tale.wordings.recipe import WordingsRecipe
from tale.wordings.regions import (
    VANILLA,
    Best,
    Cell,
    Curve,
    WordingAnswers,
    best_on_held_out,
    best_table,
    cells,
    curves,
    region_tables,
)
from tale.wordings.work import show_work

TABLES = {Cell: "cells", Curve: "curves", Best: "best"}


@dataclass(frozen=True)
class Task:
    """A task's questions; the best wording is chosen on those whose ids are in `choosing`."""

    name: str
    questions: list[Question]
    choosing: set[str]
    dropped: int


def run_wordings(recipe: WordingsRecipe) -> None:
    """Run a recipe of wordings: tables on the terminal and as CSV and JSON, and one figure per task.

    Raises:
        UserError: bad input, or questions that a model was trained on, before any weights are loaded.
    """
    _check(recipe)
    tasks = [_task(recipe, i) for i in range(len(recipe.tasks))]
    if recipe.dry_run:
        show_work(recipe, {task.name: task.questions for task in tasks})
        return
    models = _models(recipe, tasks)
    figures = {task.name: f"{task.name}.png" for task in tasks}
    outputs = ["replies.jsonl", *files_of(*TABLES.values()), *figures.values()]
    counted = {"asked": sum(len(t.questions) for t in tasks), "duplicates": sum(t.dropped for t in tasks)}
    with lock_output(recipe) as folder:
        asking = deque(
            (m.name, e) for m in models for e in engines(recipe.engine, m, folder / journal_folder(m, "model"))
        )
        start_run(recipe, outputs=outputs, models=[model.identity for model in models], questions=counted)
        grids: list[WordingAnswers] = []
        while asking:  # each engine is freed before the next one loads weights
            name, engine = asking.popleft()
            with closing(engine):
                grids += _asked(recipe, tasks, name, engine)
                log_info(f"{name}: {engine.cost.shown(recipe.prices)}, {engine.cost.seconds:,.0f} s of the engine")
        found, followed, best = _written(recipe, tasks, grids, folder)
        for task, file in figures.items():
            plot([cell for cell in found if cell.task == task], task, folder / file)
        finish_run(folder)
    for table in (*region_tables("regions", found, followed), *([best_table("regions", best)] if best else [])):
        table.show()
    if not best:
        log_info("no wording and budget takes few enough tokens to be the best (max_token_ratio=…)")
    if errors := [reply.error for grid in grids for reply in grid.replies if reply.error]:
        said = f"{len(errors)} not answered, counted as wrong, of 0 tokens; the same command asks again"
        log_warning(f"{said}; the first: {errors[0]}")
    log_info(f"tables and figures: {folder}")


def _check(recipe: WordingsRecipe) -> None:
    for key, names in (
        ("models", [model.name or model.name_or_path for model in recipe.models]),
        ("tasks", [task.name for task in recipe.tasks]),
        ("wordings", [wording.label for wording in recipe.wordings]),
        ("budgets", recipe.budgets),
    ):
        if not names:
            raise UserError(f"{key}: none given; see recipes/wordings_qwen.yaml")
        if len(set(names)) < len(names):
            raise UserError(f"{key}: {', '.join(map(str, names))}: one is given twice")
    if VANILLA in (wording.label for wording in recipe.wordings):
        raise UserError(f"wordings: {VANILLA!r} is the name of the answers without a budget; choose another label")
    if len(recipe.budgets) < 2:
        raise UserError("budgets: a single one does not show whether answers follow it; give two or more")


def _task(recipe: WordingsRecipe, number: int) -> Task:
    config = recipe.tasks[number]
    questions, dropped = select_questions(config)
    if metric_of(questions) != "accuracy":
        raise UserError(f"tasks[{number}]: {config.name} has no right and wrong answers, which a best wording needs")
    choosing = {q.id for q in split_by_context(questions, "train", 0.5, recipe.seed, "wordings")}
    if not 0 < len(choosing) < len(questions):
        raise UserError(f"tasks[{number}]: {len(questions)} questions give no two halves; take more, or another seed")
    return Task(config.name, questions, choosing, dropped)


def _models(recipe: WordingsRecipe, tasks: Sequence[Task]) -> list[AnyModel]:
    """The models, checked for engine support, contamination and context length."""
    models = [find_model(model, recipe.engine) for model in recipe.models]
    if len({model.name for model in models}) < len(models):
        raise UserError("models: two have the same name; give each a different name")
    sampling, most = Sampling(**vars(recipe.sampling)), max(recipe.budgets)
    lines = [wording.budget_line for wording in recipe.wordings]
    asked = [q for task in tasks for q in task.questions]
    texts = {q.id: [prompts.vanilla(q), *(prompts.budgeted(q, most, line) for line in lines)] for q in asked}
    longest = {id: [Request.user(text, sampling) for text in of] for id, of in texts.items()}
    for model in models:
        check_engine(recipe.engine, model)
        uncontaminated(asked, [read_card(model.merge)] if model.merge else [], "tasks")
        check_context_length(longest, model.chat(), model.max_model_len)
    return models


def _asked(recipe: WordingsRecipe, tasks: Sequence[Task], model: str, engine: JournaledEngine) -> list[WordingAnswers]:
    """All answers of a model, generated in one pass."""
    lines = {wording.label: wording.budget_line for wording in recipe.wordings}
    cells = [(VANILLA, None), *product(lines, recipe.budgets)]
    asked = [(task, *cell, question) for task in tasks for cell in cells for question in task.questions]
    sampling = Sampling(**vars(recipe.sampling))
    texts = [prompts.chain_of_thought(q, budget, lines.get(label)) for _, label, budget, q in asked]
    requests = [Request.user(text, sampling) for text in texts]
    calls = map(Call, requests, complete(engine, requests, model))
    answers: dict[str, dict[str, dict[int | None, list[Reply]]]] = {}
    for (task, label, budget, question), call in zip(asked, calls, strict=True):
        reply = graded_reply(label, question, Solution(call, budget))
        answers.setdefault(task.name, {}).setdefault(label, {}).setdefault(budget, []).append(reply)
    return [WordingAnswers(model, task, of.pop(VANILLA)[None], of) for task, of in answers.items()]  # type: ignore[arg-type]


def _written(
    recipe: WordingsRecipe, tasks: Sequence[Task], grids: Sequence[WordingAnswers], folder: Path
) -> tuple[list[Cell], list[Curve], list[Best]]:
    choosing = {task.name: task.choosing for task in tasks}
    papers = next((wording.label for wording in recipe.wordings if not wording.budget_line), None)
    lines = ({"model": g.model, "task": g.task, **reply.line} for g in grids for reply in g.replies)
    write_jsonl_atomic(folder / "replies.jsonl", lines)
    each = [cells(grid) for grid in grids]
    followed = [curve for grid, of in zip(grids, each, strict=True) for curve in curves(grid, of)]
    best = [
        row for grid in grids if (row := best_on_held_out(grid, choosing[grid.task], papers, recipe.max_token_ratio))
    ]
    flat = [cell for of in each for cell in of]
    tables: tuple[Sequence[Any], ...] = (flat, followed, best)
    for rows in filter(None, tables):
        write_rows(rows, folder, TABLES[type(rows[0])])
    return flat, followed, best
