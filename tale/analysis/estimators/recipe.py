"""What the training of estimators takes."""

from __future__ import annotations

from dataclasses import dataclass

from tale.config.fields import Recipe, opt, seed_of


@dataclass
class EstimateRecipe(Recipe):
    """Train budget estimators on searched budgets, and score them on a held-out grid search (§5.2, A.2, A.8)."""

    source = "none"

    output: str = opt("folder for the estimators, one folder each, and their scores")
    train_records: list[str] = opt("records.jsonl of searches whose β* is learnt", was="train")
    grid_records: list[str] = opt(
        "records.jsonl of searches with strategy=grid over other questions, to score on; none: train only",
        [],
        was="grid",
    )
    search_records: list[str] = opt(
        "records.jsonl of the searches with which the β* of the same questions was found; default: the grid's own",
        [],
        was="searched",
    )
    replies: list[str] = opt(
        "replies.jsonl of evaluations of the grid's questions, whose zero-shot estimates are scored too", []
    )
    coverage: float = opt("share of questions for which the conformal budget is to reach β*", 0.9, above=0, below=1)
    calibration_fraction: float = opt(
        "share of the training contexts kept apart to calibrate that", 0.3, above=0, below=1, was="calibration"
    )
    ridge: float | None = opt(
        "strength of the regression's ridge; default: by cross-validation over contexts", None, above=0
    )
    budget_multiplier: float = opt("factor on every estimate (A.8)", 1.0, above=0, was="alpha")
    seed: int = seed_of("of the split into fitting and calibration", 0)
