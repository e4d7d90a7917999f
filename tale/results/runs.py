"""Reading run folders: the kind of each run, and its outputs."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from tale.analysis import run as analysis
from tale.analysis.elasticity import BudgetLevel, ModelSummary, QuestionSummary
from tale.analysis.estimators.recipe import EstimateRecipe
from tale.analysis.estimators.score import Score
from tale.analysis.paths import Iteration, Saving
from tale.analysis.recipe import AnalyseRecipe
from tale.config.recipes import load, read_yaml
from tale.config.training import TrainRecipe
from tale.data.records import Record, read_records
from tale.errors import UserError
from tale.evaluation import run as evaluation
from tale.evaluation.anytime import AnytimeRow
from tale.evaluation.budgets import strategy_of, with_budgets
from tale.evaluation.recipe import EvaluateRecipe
from tale.evaluation.replies import Reply, read_replies
from tale.evaluation.seeds import seeds_of
from tale.evaluation.strategies import StrategyRow
from tale.evaluation.summary import Row
from tale.inference.journal import Journal, read_journal
from tale.results.events import Curves, read_curves
from tale.search.recipe import SearchRecipe
from tale.serve.log import FILE as REQUESTS
from tale.serve.log import RequestRow, read_log
from tale.serve.recipe import ServeRecipe
from tale.solvers.base import Method
from tale.solvers.strategy import Strategy
from tale.storage.folder import RunMetadata, check_recipe, is_finished
from tale.storage.strict_json import read_json
from tale.wordings import run as wordings
from tale.wordings.recipe import WordingsRecipe

Kind = TypeVar("Kind")
Analysed = TypeVar("Analysed", BudgetLevel, QuestionSummary, ModelSummary, Iteration, Saving)
Compared = TypeVar("Compared", StrategyRow, AnytimeRow)
LONGEST = 150  # bytes of a run in a file's name, which has 255 at most


@dataclass(frozen=True)
class Run:
    """A run folder. `identity` is its run.json, `yaml` its resolved recipe as text; both empty if missing."""

    folder: Path
    identity: RunMetadata = field(default_factory=RunMetadata)
    yaml: str = ""

    @property
    def name(self) -> str:
        """The folder, as it was given."""
        return str(self.folder)

    @property
    def slug(self) -> str:
        """The folder as a file name or an anchor; a long one is shortened to its end and a hash."""
        slug = re.sub(r"[^\w-]+", "-", self.name).strip("-")
        if len(slug.encode()) <= LONGEST:
            return slug
        end = slug.encode()[-LONGEST:].decode(errors="ignore")
        return f"{end}-{hashlib.sha256(self.name.encode()).hexdigest()[:8]}"

    @property
    def model(self) -> str:
        """The base model's name."""
        return str(self.identity.get("base", {}).get("name", "unknown model"))

    @cached_property
    def journals(self) -> list[Journal]:
        """All journals of the run, those of its shards, models or estimators' models included."""
        places = (".", "shard-*", "model-*", "estimator-*")
        files = [file for place in places for file in self.folder.glob(f"{place}/journal*.jsonl")]
        return [read_journal(file) for file in sorted(files)]

    def place(self, path: str, output: str) -> Path:
        """The current location of a path in the recipe, relative to this folder, which was `output` in the run."""
        return Path(os.path.normpath(self.folder.absolute() / os.path.relpath(path, output)))

    def made(self, path: str, output: str, by: Run) -> bool:
        """Whether the run `by` wrote what is at a path of this run's recipe, unchanged since."""
        place, then = self.place(path, output), self.identity.get("inputs", {}).get(path)
        now = by.identity.get("outputs", {}).get(place.name)
        return place.parent == by.folder.absolute() and (then == now or None in (then, now))


@dataclass(frozen=True)
class SearchRun(Run):
    """A search; `records` is None if it was not finished."""

    recipe: SearchRecipe = field(kw_only=True)

    @cached_property
    def records(self) -> list[Record] | None:
        """The record of each question."""
        file = self.folder / "records.jsonl"
        return read_records(file) if is_finished(file) else None


@dataclass(frozen=True)
class TrainRun(Run):
    """A training; it has no adapter if it was not finished."""

    recipe: TrainRecipe = field(kw_only=True)

    @property
    def finished(self) -> bool:
        """Whether it has written an adapter."""
        return is_finished(self.folder / "adapter")

    @cached_property
    def curves(self) -> Curves:
        """The metrics logged at each step."""
        return read_curves(self.folder)

    def searches(self, runs: Iterable[Run]) -> list[SearchRun]:
        """The searches, of those given, that it was trained on."""
        read, output = self.recipe.data.records, self.recipe.output
        searches = [run for run in runs if isinstance(run, SearchRun)]
        return [run for run in searches if any(self.made(path, output, run) for path in read)]


@dataclass(frozen=True)
class EvaluationRun(Run):
    """An evaluation; `replies` is None if it was not finished, or only with other methods or seeds."""

    recipe: EvaluateRecipe = field(kw_only=True)

    @cached_property
    def replies(self) -> dict[str, list[Reply]] | None:
        """Every method's replies, over the same questions in the same order."""
        if not is_finished(self.file):
            return None
        replies = read_replies(self.file)
        seeds = {reply.seed for of in replies.values() for reply in of}
        same = replies.keys() == self.methods.keys() and seeds == set(seeds_of(self.recipe))
        return replies if not replies or same else None

    @property
    def file(self) -> Path:
        """The file of replies."""
        return self.folder / "replies.jsonl"

    @cached_property
    def clean(self) -> list[Row]:
        """The rows for uncontaminated questions; empty if the run has no table of them."""
        return _read_rows(self.folder / "summary_clean.json", Row, "scripts/evaluate.py")

    def rows(self, kind: type[Compared]) -> list[Compared]:
        """The saved rows of what compares strategies; empty if the run has none, or of an earlier start's methods."""
        rows = _read_rows(self.folder / f"{evaluation.TABLES[kind]}.json", kind, "scripts/evaluate.py")
        strategies = set(map(strategy_of, self.methods.values()))
        return rows if {row.strategy for row in rows} <= strategies else []

    @cached_property
    def methods(self) -> dict[str, Method]:
        """The methods by their name in tables, each strategy at every budget."""
        return {method.name: method for method in with_budgets(self.recipe)}

    @property
    def without_b(self) -> list[str]:
        """The names of the methods that are no strategies, which have no token budget B."""
        return [name for name, method in self.methods.items() if not isinstance(method, Strategy)]

    def training(self, method: Method, runs: Iterable[Run]) -> TrainRun | None:
        """The training, of those given, that wrote the method's adapter."""
        made = lambda run: method.adapter and self.made(method.adapter, self.recipe.output, run)  # noqa: E731
        return next((run for run in runs if isinstance(run, TrainRun) and made(run)), None)


@dataclass(frozen=True)
class AnalysisRun(Run):
    """An analysis of searches."""

    recipe: AnalyseRecipe = field(kw_only=True)

    @property
    def labels(self) -> list[str]:
        """The names of its searches in its tables."""
        return analysis.labels_of(self.recipe.records)

    def rows(self, kind: type[Analysed]) -> list[Analysed]:
        """A table's saved rows; empty without such a table, or if it is of an earlier start with other searches."""
        rows = _read_rows(self.folder / f"{analysis.TABLES[kind]}.json", kind, "scripts/analyse.py")
        labels = self.labels
        return [row for row in rows if row.records in labels]


@dataclass(frozen=True)
class EstimateRun(Run):
    """Trained estimators."""

    recipe: EstimateRecipe = field(kw_only=True)

    @property
    def trained(self) -> list[str]:
        """The estimators that it has written."""
        return sorted(file.parent.name for file in self.folder.glob("*/estimator.json") if is_finished(file.parent))

    @cached_property
    def scores(self) -> list[Score]:
        """The saved scores; empty if nothing was scored, or if they are of an earlier start with other questions."""
        rows = _read_rows(self.folder / "scores.json", Score, "scripts/estimate.py")
        return [row for row in rows if row.questions == self.identity.get("examples", {}).get("held_out")]


@dataclass(frozen=True)
class WordingsRun(Run):
    """A grid of wordings, budgets, models and tasks."""

    recipe: WordingsRecipe = field(kw_only=True)

    def rows(self, kind: type[Kind]) -> list[Kind]:
        """A table's saved rows; empty if the run was not finished, or found none."""
        return _read_rows(self.folder / f"{wordings.TABLES[kind]}.json", kind, "scripts/wordings.py")


@dataclass(frozen=True)
class ServeRun(Run):
    """A proxy, which may be running."""

    recipe: ServeRecipe = field(kw_only=True)

    @cached_property
    def requests(self) -> list[RequestRow]:
        """The rows of its log so far."""
        file = self.folder / REQUESTS
        return list(read_log(file)) if file.exists() else []


# By the kind in run.json.
KINDS = {
    "search": (SearchRun, SearchRecipe),
    "train": (TrainRun, TrainRecipe),
    "evaluate": (EvaluationRun, EvaluateRecipe),
    "wordings": (WordingsRun, WordingsRecipe),
    "analyse": (AnalysisRun, AnalyseRecipe),
    "estimate": (EstimateRun, EstimateRecipe),
    "serve": (ServeRun, ServeRecipe),
}


def read_runs(folders: Sequence[str]) -> list[Run]:
    """Every folder's run, each once.

    Raises:
        UserError: no folder is given or one is not there, or a recipe.yaml or run.json cannot be read.
    """
    if not folders:
        raise UserError("runs: none given, such as runs=[runs/search,runs/sft,runs/eval]")
    for folder in folders:
        if not Path(folder).is_dir():
            raise UserError(f"runs: no folder {folder}; give the output folders of runs")
    places = {os.path.realpath(folder): Path(os.path.normpath(folder)) for folder in reversed(folders)}
    runs = [_read(folder) for folder in reversed(places.values())]
    named: dict[str, Run] = {}
    for run in runs:
        if (other := named.setdefault(run.slug, run)) is not run:
            raise UserError(f"runs: {other.name} and {run.name} would have files of one name; rename a folder")
    return runs


def _read_rows(file: Path, kind: type[Kind], script: str) -> list[Kind]:
    """The rows that `tale.output.tables.write_rows` wrote, if any."""
    rows = list[kind]  # type: ignore[valid-type]
    return read_json(file, rows, "a table of figures", f"{script} writes it again") if is_finished(file) else []


def _read(folder: Path) -> Run:
    identity, file = check_recipe(folder), folder / "recipe.yaml"
    if not file.is_file():
        return Run(folder, identity)
    keys, text = read_yaml(file), file.read_text(encoding="utf-8")
    if not identity and "output" in keys:  # as the recipe of every run has
        raise UserError(f"{folder}: has recipe.yaml but no run.json; copy the whole folder, or run it again")
    if (kind := identity.get("kind")) not in KINDS:
        return Run(folder, identity, text)
    run, recipe = KINDS[kind]
    return run(folder, identity, text, recipe=load(recipe, [f"recipe={file}"]))
