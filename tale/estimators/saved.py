"""Saving a trained estimator: a folder with one JSON file of its numbers, and hashes of the training questions."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tale.data.question import HASH_VERSION
from tale.data.splits import check_hash_version
from tale.errors import UserError
from tale.estimators.base import Constant
from tale.estimators.regression import Regression
from tale.storage.files import write_atomic
from tale.storage.folder import check_output
from tale.storage.strict_json import convert_value, read_json

FILE = "estimator.json"
TrainedEstimator = Constant | Regression
Kind = Literal["constant", "regression"]
KINDS: dict[Kind, type[TrainedEstimator]] = {"constant": Constant, "regression": Regression}


@dataclass(frozen=True)
class EstimatorCard:
    """An estimator's training manifest, with the tokenizer and the `budget_line` of its searches, as in a record."""

    tokenizer: str
    questions: list[str]
    contexts: list[str]
    budget_line: str | None = None
    hashes: int = HASH_VERSION

    def check_budget_line(self, budget_line: str | None, where: str) -> None:
        """Refuse prompts with another `budget_line` than the searches' that the estimator was trained on.

        Raises:
            UserError: they differ; it begins with `where`, key and folder of the estimator.
        """
        if self.budget_line != budget_line:
            raise UserError(
                f"{where} was trained on searches with budget_line={self.budget_line}, and this has {budget_line}; set "
                "the same, or train an estimator on such searches with scripts/estimate.py"
            )


@dataclass(frozen=True)
class SavedEstimator:
    """The content of the file."""

    kind: Kind
    card: dict[str, Any]
    numbers: dict[str, Any]


def save_estimator(estimator: TrainedEstimator, card: EstimatorCard, folder: Path) -> None:
    """Write the estimator's file to a folder."""
    kind = next(name for name, made in KINDS.items() if isinstance(estimator, made))
    saved = SavedEstimator(kind, asdict(card), asdict(estimator))
    write_atomic(folder / FILE, json.dumps(vars(saved), ensure_ascii=False, indent=1) + "\n")


def load_estimator(folder: Path) -> tuple[TrainedEstimator, EstimatorCard]:
    """The estimator and its card.

    Raises:
        UserError: it is missing or damaged, not of the run in the parent folder, or its card has hashes of another
            version.
    """
    check_output(folder)
    file = folder / FILE
    remedy = "train an estimator with scripts/estimate.py"
    saved = read_json(file, SavedEstimator, "an estimator", remedy)
    estimator = convert_value(saved.numbers, KINDS[saved.kind], f"{file}: numbers", "an estimator's", remedy)
    # The first cards have no version of their hashes.
    card = convert_value({"hashes": 1, **saved.card}, EstimatorCard, f"{file}: card", "an estimator's", remedy)
    check_hash_version(card, file, "train the estimator again (seconds)")
    return estimator, card
