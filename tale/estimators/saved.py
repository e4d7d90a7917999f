"""A trained estimator's folder: one JSON file with its numbers, and hashes of what it was trained on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tale.data.question import HASHES
from tale.data.splits import check_hashes
from tale.estimators.base import Constant
from tale.estimators.regression import Regression
from tale.storage.files import write_atomic
from tale.storage.folder import check_output
from tale.storage.strict_json import read_file, typed

FILE = "estimator.json"
Trained = Constant | Regression
Kind = Literal["constant", "regression"]
KINDS: dict[Kind, type[Trained]] = {"constant": Constant, "regression": Regression}


@dataclass(frozen=True)
class EstimatorCard:
    """What an estimator keeps of its making: whose tokens β* is in, and hashes of all questions that it has seen.

    `budget_line` is how the budgets were asked for, as in a record. `hashes`: as in `tale.data.splits.Seen`.
    """

    tokenizer: str
    questions: list[str]
    contexts: list[str]
    budget_line: str | None = None
    hashes: int = HASHES


@dataclass(frozen=True)
class Saved:
    """The file."""

    kind: Kind
    card: dict[str, Any]
    numbers: dict[str, Any]


def save_estimator(estimator: Trained, card: EstimatorCard, folder: Path) -> None:
    """Write the folder's one file."""
    kind = next(name for name, made in KINDS.items() if isinstance(estimator, made))
    saved = Saved(kind, asdict(card), asdict(estimator))
    write_atomic(folder / FILE, json.dumps(vars(saved), ensure_ascii=False, indent=1) + "\n")


def load_estimator(folder: Path) -> tuple[Trained, EstimatorCard]:
    """The estimator and its card.

    Raises:
        UserError: the folder holds none, a damaged one, one that the run beside it has not made, or one whose card has
            hashes of another version.
    """
    check_output(folder)
    file = folder / FILE
    remedy = "train an estimator with scripts/estimate.py"
    saved = read_file(file, Saved, "an estimator", remedy)
    estimator = typed(saved.numbers, KINDS[saved.kind], f"{file}: numbers", "an estimator's", remedy)
    # The first cards do not say which hashes they have.
    card = typed({"hashes": 1, **saved.card}, EstimatorCard, f"{file}: card", "an estimator's", remedy)
    check_hashes(card, file, "train the estimator again (seconds)")
    return estimator, card
