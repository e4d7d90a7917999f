"""Running an evaluation: checks, models, replies, tables."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tale.data.question import Question
from tale.data.splits import TrainingManifest, uncontaminated
from tale.errors import UserError
from tale.estimators import Estimate
from tale.estimators.saved import load_estimator
from tale.estimators.zero_shot import zero_shot
from tale.evaluation.anytime import AnytimeRow, anytime_indices, anytime_table
from tale.evaluation.budgets import at_budgets, with_budgets
from tale.evaluation.curves import plot_anytime, plot_strategies
from tale.evaluation.plot import plot
from tale.evaluation.recipe import EvaluateRecipe
from tale.evaluation.replies import Reply, answer_all, check_methods, run_solvers, samplings_for
from tale.evaluation.seeds import check_seeds, repeat_for_seeds, sampling_of
from tale.evaluation.strategies import StrategyRow, Usage, compare_strategies, strategies_table
from tale.evaluation.summary import Row, summarise, tables
from tale.inference import Sampling
from tale.inference.build import AnyModel, check_engine, check_requests, engines, find_model, journal_folder
from tale.inference.context_length import check_context_length
from tale.inference.openai.engine import RemoteModel
from tale.models.adapters import check_adapter, read_card
from tale.output.tables import Table, files_of, write_rows
from tale.runs.run import RunInputs, finish_run, lock_output, start_run
from tale.solvers.base import Method
from tale.solvers.estimating import Estimating
from tale.solvers.strategy import Strategy
from tale.solvers.tale_ep import TaleEP
from tale.solvers.vanilla import Vanilla
from tale.storage.files import write_jsonl_atomic
from tale.tasks.selection import metric_of, select_questions
from tale.text import log_info

OUTPUTS = ("replies.jsonl", *files_of("summary", "summary_clean"))
# What a run with strategies has, too: tables by the kind of their rows, and a drawing.
TABLES: dict[type, str] = {StrategyRow: "strategies", AnytimeRow: "anytime"}
STRATEGIES = (*files_of(*TABLES.values()), "anytime.png")


@dataclass(frozen=True)
class _Checked:
    """The checked inputs. `others`: zero-shot estimators by method; `clean`: ids of uncontaminated questions."""

    base: AnyModel
    others: dict[str, AnyModel]
    adapters: list[str | None]
    questions: list[Question]
    dropped: int
    clean: set[str]
    sampling: Sampling  # the same for every method that is compared
    methods: list[Method]  # with every budget


def evaluate(recipe: EvaluateRecipe) -> list[Row]:
    """Run an evaluation recipe; returns the summary's rows.

    Raises:
        UserError: bad input, or questions that a model was trained on, before any weights are loaded.
    """
    given = _check(recipe)
    several = f" under {len(recipe.seeds)} seeds" * (len(recipe.seeds) > 1)
    title = f"{recipe.task.name}: {given.base.name}, {len(given.questions)} questions{several}"
    budgeted = [method.name for method in given.methods if isinstance(method, Strategy)]
    drawing, strategies = f"{metric_of(given.questions)}_tokens.png", list[Table]()
    with lock_output(recipe) as folder:
        replies, usage = _answered(recipe, given, folder, [drawing, *(STRATEGIES if budgeted else ())])
        write_jsonl_atomic(folder / "replies.jsonl", (reply.line for rows in replies.values() for reply in rows))
        rows, cleaner = _written(recipe, replies, folder, "summary"), []
        if 0 < len(given.clean) < len(given.questions):
            subset = {method: [r for r in of if r.question in given.clean] for method, of in replies.items()}
            cleaner = _written(recipe, subset, folder, "summary_clean")
        if budgeted:
            strategies = _strategies(recipe, given.methods, replies, usage, title, folder / drawing)
        else:
            plot(rows, title, folder / drawing)
        finish_run(folder)
    alone = [row for row in rows if row.method not in budgeted]
    shown = (tables(alone, title) if alone else []) + strategies
    if alone and cleaner:
        cleaner = [row for row in cleaner if row.method not in budgeted]
        shown += tables(cleaner, f"{title}; the {len(given.clean)} whose context was never trained on")
    for table in shown:
        table.show()
    if not given.clean:
        log_info("no table of uncontaminated questions: the context of every question was trained on")
    log_info(f"replies: {folder / 'replies.jsonl'}", f"plot: {folder / drawing}")
    return rows


def _check(recipe: EvaluateRecipe) -> _Checked:
    """Check the whole recipe, before anything is written."""
    check_seeds(recipe)
    base = find_model(recipe.model, recipe.engine)
    questions, dropped = select_questions(recipe.task)
    metric_of(questions)
    sampling = sampling_of(recipe)
    methods = with_budgets(recipe)
    places = [i for i, method in enumerate(recipe.methods) for _ in at_budgets(method, recipe)]
    check_methods(methods, questions, sampling, places)
    adapters = list(dict.fromkeys(method.adapter for method in methods))
    cards: list[TrainingManifest | None] = []
    if not isinstance(base, RemoteModel):
        cards += [check_adapter(Path(folder), base) for folder in adapters if folder]
    elif any(adapters):
        raise UserError("methods: an endpoint has its own model; serve the adapter there as another model")
    estimated = [method for method in methods if isinstance(method, TaleEP)]
    trained = [method.estimator for method in methods if isinstance(method, Estimating)]
    cards += [load_estimator(Path(folder))[1] for folder in trained if folder]
    others = {m.name: find_model(m.estimator_model, recipe.engine) for m in estimated if m.estimator_model}
    for model in (base, *others.values()):
        check_engine(recipe.engine, model)
    cards += [read_card(model.merge) for model in (base, *others.values()) if model.merge]
    clean = uncontaminated(questions, cards)
    longest = {q.id: [request for m in methods for request in m.longest_requests(q, sampling)] for q in questions}
    check_requests(recipe.engine, chain.from_iterable(longest.values()))
    check_context_length(longest, base.chat(), base.max_model_len)
    return _Checked(base, others, adapters, questions, dropped, clean, sampling, methods)


def _answered(
    recipe: EvaluateRecipe, given: _Checked, folder: Path, more: Sequence[str]
) -> tuple[dict[str, list[Reply]], dict[str, Usage]]:
    """Start the run, and collect every method's replies and usage from the folder's journals and the models.

    `more`: files that the run writes beside `OUTPUTS`.

    All journals are opened, and so checked, before anything is written; each engine is freed before the next one loads
    weights.
    """
    models = {journal_folder(model, "estimator"): model for model in given.others.values()}
    asking = deque((place, e) for place, model in models.items() for e in engines(recipe.engine, model, folder / place))
    answering = deque(zip(given.adapters, engines(recipe.engine, given.base, folder, given.adapters), strict=True))
    reads = {path for method in given.methods for path in method.reads}
    counted = {"asked": len(given.questions), "duplicates": given.dropped}
    used: RunInputs = {"base": given.base.identity, "questions": counted}
    start_run(recipe, None, (*OUTPUTS, *more), reads=sorted(reads), metric=metric_of(given.questions), **used)
    asked, seeds = repeat_for_seeds(given.questions, recipe)
    estimates: dict[str, list[Estimate]] = {}
    usage = {method.name: Usage() for method in given.methods}
    while asking:
        place, engine = asking.popleft()
        for name in (name for name, model in given.others.items() if journal_folder(model, "estimator") == place):
            solvers, before = map(zero_shot, asked, samplings_for(given.sampling, seeds)), Usage.of(engine)
            estimates[name] = run_solvers(solvers, engine, len(asked), f"{name}: estimator")
            usage[name] += Usage.of(engine) - before
    replies: dict[str, list[Reply]] = {method.name: [] for method in given.methods}
    while answering:
        adapter, engine = answering.popleft()
        # The largest B first: calls under a smaller one are beginnings of those.
        for method in sorted((m for m in given.methods if m.adapter == adapter), key=_by_budget):
            name, before = method.name, Usage.of(engine)
            replies[name] = answer_all(method, asked, engine, given.sampling, estimates.get(name), seeds)
            usage[name] += Usage.of(engine) - before
    return replies, usage


def _written(recipe: EvaluateRecipe, replies: dict[str, list[Reply]], folder: Path, name: str) -> list[Row]:
    rows = summarise(replies, baseline_of(recipe.methods), recipe.prices, recipe.noninferiority_margin / 100)
    write_rows(rows, folder, name)
    return rows


def _strategies(
    recipe: EvaluateRecipe,
    methods: Sequence[Method],
    replies: dict[str, list[Reply]],
    usage: dict[str, Usage],
    title: str,
    drawing: Path,
) -> list[Table]:
    """Write what compares methods at equal budgets, into the folder of `drawing`; its tables."""
    rows, indices = compare_strategies(methods, replies, usage, recipe.prices), anytime_indices(methods, replies)
    write_rows(rows, drawing.parent, TABLES[StrategyRow])
    plot_strategies(rows, title, drawing)
    if not indices:
        return [strategies_table(rows, title)]
    write_rows(indices, drawing.parent, TABLES[AnytimeRow])
    plot_anytime(methods, replies, title, drawing.with_name("anytime.png"))
    return [strategies_table(rows, title), anytime_table(indices)]


def _by_budget(method: Method) -> float:
    return -(method.total_budget or method.budget_multiplier or 0.0) if isinstance(method, Strategy) else 0.0


def baseline_of(methods: Sequence[Method]) -> str | None:
    """The baseline that other methods are compared with: the first vanilla CoT without an adapter."""
    plain = [method for method in methods if isinstance(method, Vanilla) and not method.adapter]
    return plain[0].name if plain else None
