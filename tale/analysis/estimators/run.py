"""Training estimators on searches' β*, and scoring them on a grid search of other questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from tale.analysis.estimators.recipe import EstimateRecipe
from tale.analysis.estimators.replied import replied
from tale.analysis.estimators.score import Ideal, Score, ideals, score, score_tables
from tale.data.records import Record, read_records
from tale.data.splits import by_context, contexts, unseen
from tale.errors import UserError, known
from tale.estimators.base import Constant, Estimate, Estimator, Oracle
from tale.estimators.regression import calibrated, fit
from tale.estimators.saved import EstimatorCard, Trained, save_estimator
from tale.output.tables import files_of, write_rows
from tale.runs.compare import check_comparable, read_recipe, run_folder
from tale.runs.run import finish_run, hold, start_run
from tale.storage.folder import Examples
from tale.text import say


def run_estimate(recipe: EstimateRecipe) -> list[Score]:
    """Run an estimate recipe: train, save, and score where a grid search is given; the scores.

    Raises:
        UserError: records that are missing, not comparable or too few, or a grid whose questions were trained on.
    """
    _check(recipe)
    trained, card, stars = train_estimators(recipe)
    held_out = _held_out(recipe, card) if recipe.grid_records else []
    questions = [one.question for one in held_out]
    asked = [found for file in recipe.replies for found in replied(Path(file), questions, card.budget_line).items()]
    with hold(recipe) as folder:
        counted: Examples = {"train": stars, "held_out": len(held_out)}
        reads = (*recipe.train_records, *recipe.grid_records, *recipe.search_records, *recipe.replies)
        start_run(recipe, None, (*trained, *files_of("scores")), reads=reads, examples=counted)
        for name, estimator in trained.items():
            save_estimator(estimator, card, folder / name)
        rows = _scored(recipe, trained, held_out, asked)
        if rows:
            write_rows(rows, folder, "scores")
        finish_run(folder)
    folders = ", ".join(str(folder / name) for name in trained)
    say(f"trained on the β* of {stars} questions, of {len(card.questions)} that were searched: {folders}")
    if rows:
        say(f"estimates are multiplied by α = {recipe.budget_multiplier:g}")
        for table in score_tables("", rows):
            table.show()
    return rows


def _scored(
    recipe: EstimateRecipe,
    trained: Mapping[str, Trained],
    held_out: Sequence[Ideal],
    asked: Sequence[tuple[str, list[Estimate]]],
) -> list[Score]:
    """The scores of the trained estimators, the oracle and those that were asked; none without held-out questions."""
    if not held_out:
        return []
    questions = [one.question for one in held_out]
    oracle: Estimator = Oracle({one.question.question_hash: one.star for one in held_out})
    estimates = {name: estimator.estimate(questions) for name, estimator in {**trained, "oracle": oracle}.items()}
    estimates |= dict(asked)
    return [
        score(name, held_out, of, estimates["constant"], recipe.budget_multiplier) for name, of in estimates.items()
    ]


def train_estimators(recipe: EstimateRecipe) -> tuple[dict[str, Trained], EstimatorCard, int]:
    """The constant, the regression and the conformal bound, the card of what they have seen, and how many β* they had.

    The conformal bound's regression is fitted on a part of the contexts and calibrated on the others, so it is another
    one than the plain regression, which sees all.
    """
    records = [record for file in recipe.train_records for record in read_records(Path(file))]
    examples = _first_of_each([record for record in records if record.target])
    if not examples:
        raise UserError(f"train_records: none of {len(records)} questions has a β*")
    if len(tokenizers := sorted({record.tokenizer for record in records})) > 1:
        raise UserError(
            f"train_records: tokens of {', '.join(tokenizers)} in one training; give the searches of one model"
        )
    if len(lines := {record.budget_line for record in records}) > 1:
        raise UserError(f"train_records: {_lines(lines)} in one training; give searches that ask for a budget alike")
    questions = [record.question for record in examples]
    sides = {
        part: by_context(questions, part, recipe.calibration_fraction, recipe.seed, "calibration")
        for part in ("train", "test")
    }
    stars = {record.question.question_hash: known(record.budget) for record in examples}
    of = lambda side: (side, [stars[question.question_hash] for question in side])  # noqa: E731
    estimators: dict[str, Trained] = {
        "constant": Constant(float(median(stars.values()))),
        "regression": fit(*of(questions), recipe.ridge),
        "conformal": calibrated(fit(*of(sides["train"]), recipe.ridge), *of(sides["test"]), recipe.coverage),
    }
    # What was searched without finding a β* was not learnt from, but its story was looked at: it counts as seen.
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
            raise UserError(
                f"grid_records: {file} is of a search with strategy={strategy}; an ideal range needs strategy=grid"
            )


def _held_out(recipe: EstimateRecipe, card: EstimatorCard) -> list[Ideal]:
    """The grid's questions with a β*, without those whose context was trained on."""
    records = _first_of_each([record for file in recipe.grid_records for record in read_records(Path(file))])
    clean = unseen([record.question for record in records], [card], "grid_records")
    if others := {record.tokenizer for record in records} - {card.tokenizer}:
        raise UserError(
            f"grid_records: its tokens are of {', '.join(sorted(others))}, the training's of {card.tokenizer}"
        )
    source = [record for file in recipe.search_records for record in read_records(Path(file))] or records
    for key, of in (("grid_records", records), ("search_records", source)):
        if lines := {record.budget_line for record in of} - {card.budget_line}:
            raise UserError(f"{key}: {_lines(lines)}, the training {_lines({card.budget_line})}")
    found = ideals(
        [record for record in records if record.question.id in clean],
        {record.question.question_hash: record.budget for record in source if record.target},
    )
    if not found:
        raise UserError(f"grid_records: none of its {len(records)} questions is new and has a β*")
    say(
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
