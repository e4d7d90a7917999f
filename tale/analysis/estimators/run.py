"""Training estimators on the β* of searches, and scoring them on a grid search of other questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from tale.analysis.estimators.logged import logged_estimates
from tale.analysis.estimators.recipe import EstimateRecipe
from tale.analysis.estimators.score import HeldOutQuestion, Score, held_out_questions, score, score_tables
from tale.data.records import Record, read_records
from tale.data.splits import contexts, split_by_context, uncontaminated
from tale.errors import UserError, not_none
from tale.estimators.base import Constant, Estimate, Estimator, Oracle
from tale.estimators.regression import calibrate, fit
from tale.estimators.saved import EstimatorCard, TrainedEstimator, save_estimator
from tale.output.tables import files_of, write_rows
from tale.runs.compare import check_comparable, read_recipe, run_folder
from tale.runs.run import finish_run, lock_output, start_run
from tale.storage.folder import ExampleCounts
from tale.text import log_info


def run_estimate(recipe: EstimateRecipe) -> list[Score]:
    """Run an estimate recipe: train, save, and score if a grid search is given; returns the scores.

    Raises:
        UserError: records that are missing, not comparable or too few, or a grid whose questions were trained on.
    """
    _check(recipe)
    trained, card, stars = train_estimators(recipe)
    held_out = _held_out(recipe, card) if recipe.grid_records else []
    questions = [one.question for one in held_out]
    asked = [
        found for file in recipe.replies for found in logged_estimates(Path(file), questions, card.budget_line).items()
    ]
    with lock_output(recipe) as folder:
        counted: ExampleCounts = {"train": stars, "held_out": len(held_out)}
        reads = (*recipe.train_records, *recipe.grid_records, *recipe.search_records, *recipe.replies)
        start_run(recipe, None, (*trained, *files_of("scores")), reads=reads, examples=counted)
        for name, estimator in trained.items():
            save_estimator(estimator, card, folder / name)
        rows = _scored(recipe, trained, held_out, asked)
        if rows:
            write_rows(rows, folder, "scores")
        finish_run(folder)
    folders = ", ".join(str(folder / name) for name in trained)
    log_info(f"trained on the β* of {stars} questions, of {len(card.questions)} that were searched: {folders}")
    if rows:
        log_info(f"estimates are multiplied by α = {recipe.budget_multiplier:g}")
        for table in score_tables("", rows):
            table.show()
    return rows


def _scored(
    recipe: EstimateRecipe,
    trained: Mapping[str, TrainedEstimator],
    held_out: Sequence[HeldOutQuestion],
    asked: Sequence[tuple[str, list[Estimate]]],
) -> list[Score]:
    """The scores of the trained estimators, the oracle and the logged estimates; none without held-out questions."""
    if not held_out:
        return []
    questions = [one.question for one in held_out]
    oracle: Estimator = Oracle({one.question.question_hash: one.star for one in held_out})
    estimates = {name: estimator.estimate(questions) for name, estimator in {**trained, "oracle": oracle}.items()}
    estimates |= dict(asked)
    return [
        score(name, held_out, of, estimates["constant"], recipe.budget_multiplier) for name, of in estimates.items()
    ]


def train_estimators(recipe: EstimateRecipe) -> tuple[dict[str, TrainedEstimator], EstimatorCard, int]:
    """The constant, the regression and the conformal bound, their common card, and the number of β* trained on.

    The conformal bound's regression is fitted on a part of the contexts and calibrated on the others, unlike the plain
    regression, which is fitted on all.
    """
    records = [record for file in recipe.train_records for record in read_records(Path(file))]
    examples = _first_of_each([record for record in records if record.target])
    if not examples:
        raise UserError(f"train_records: none of {len(records)} questions has a β*")
    if len(tokenizers := sorted({record.tokenizer for record in records})) > 1:
        raise UserError(f"train_records: tokens of {', '.join(tokenizers)} in one training; give one model's searches")
    if len(lines := {record.budget_line for record in records}) > 1:
        raise UserError(f"train_records: {_lines(lines)} in one training; give searches with the same budget_line")
    questions = [record.question for record in examples]
    sides = {
        part: split_by_context(questions, part, recipe.calibration_fraction, recipe.seed, "calibration")
        for part in ("train", "test")
    }
    stars = {record.question.question_hash: not_none(record.budget) for record in examples}
    of = lambda side: (side, [stars[question.question_hash] for question in side])  # noqa: E731
    estimators: dict[str, TrainedEstimator] = {
        "constant": Constant(float(median(stars.values()))),
        "regression": fit(*of(questions), recipe.ridge),
        "conformal": calibrate(fit(*of(sides["train"]), recipe.ridge), *of(sides["test"]), recipe.coverage),
    }
    # Questions without a β* are not trained on, but their features may be chosen by them: they are in the manifest.
    searched = [record.question for record in records]
    seen = sorted({question.question_hash for question in searched}), sorted(set(contexts(searched)))
    return estimators, EstimatorCard(tokenizers[0], *seen, lines.pop()), len(stars)


def _check(recipe: EstimateRecipe) -> None:
    if not recipe.train_records:
        raise UserError("train_records: none given; train_records=[runs/search/records.jsonl]")
    for key in ("search_records", "replies"):
        if getattr(recipe, key) and not recipe.grid_records:
            raise UserError(f"{key}: only with grid_records, the search to score on")
    files = [
        Path(file) for file in (*recipe.train_records, *recipe.grid_records, *recipe.search_records, *recipe.replies)
    ]
    check_comparable([run_folder(file) for file in files])
    for file in map(Path, recipe.grid_records):
        if (strategy := read_recipe(run_folder(file)).get("strategy")) != "grid":
            raise UserError(f"grid_records: {file} has strategy={strategy}; an ideal range needs strategy=grid")


def _held_out(recipe: EstimateRecipe, card: EstimatorCard) -> list[HeldOutQuestion]:
    """The grid's questions with a β*, without those whose context was trained on."""
    records = _first_of_each([record for file in recipe.grid_records for record in read_records(Path(file))])
    clean = uncontaminated([record.question for record in records], [card], "grid_records")
    if others := {record.tokenizer for record in records} - {card.tokenizer}:
        raise UserError(f"grid_records: tokens are of {', '.join(sorted(others))}, the training's of {card.tokenizer}")
    source = [record for file in recipe.search_records for record in read_records(Path(file))] or records
    for key, of in (("grid_records", records), ("search_records", source)):
        if lines := {record.budget_line for record in of} - {card.budget_line}:
            raise UserError(f"{key}: {_lines(lines)}, the training {_lines({card.budget_line})}")
    found = held_out_questions(
        [record for record in records if record.question.id in clean],
        {record.question.question_hash: record.budget for record in source if record.target},
    )
    if not found:
        raise UserError(f"grid_records: none of its {len(records)} questions is new and has a β*")
    log_info(
        f"{len(found)} held-out questions; left out: {len(records) - len(clean)} whose context was trained on, "
        f"{len(clean) - len(found)} without a β*"
    )
    return found


def _first_of_each(records: Sequence[Record]) -> list[Record]:
    first: dict[str, Record] = {}
    for record in records:
        first.setdefault(record.question.question_hash, record)
    return list(first.values())


def _lines(lines: set[str | None]) -> str:
    return " and ".join(sorted(f"budget_line={line}" for line in lines))
