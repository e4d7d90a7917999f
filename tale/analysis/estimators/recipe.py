"""The recipe of training estimators."""

from __future__ import annotations

from dataclasses import dataclass

from tale.config.fields import Recipe, opt, seed_option


@dataclass
class EstimateRecipe(Recipe):
    """Train budget estimators on searched budgets, and score them on a held-out grid search (§5.2, A.2, A.8)."""

    source = "none"

    output: str = opt("folder for the estimators, in one subfolder each, and their scores")
    train_records: list[str] = opt("records.jsonl of the searches to train on", renamed_from="train")
    grid_records: list[str] = opt(
        "records.jsonl of searches with strategy=grid over other questions, to score on; default: train only",
        [],
        renamed_from="grid",
    )
    search_records: list[str] = opt(
        "records.jsonl of searches with the β* of the questions in grid_records; default: the grid's own",
        [],
        renamed_from="searched",
    )
    replies: list[str] = opt(
        "replies.jsonl of evaluations of the questions in grid_records, whose zero-shot estimates are scored too", []
    )
    coverage: float = opt("share of questions for which the conformal budget is to reach β*", 0.9, gt=0, lt=1)
    calibration_fraction: float = opt(
        "share of the training contexts held out to calibrate the conformal budget",
        0.3,
        gt=0,
        lt=1,
        renamed_from="calibration",
    )
    ridge: float | None = opt("ridge of the regression; default: by cross-validation over contexts", None, gt=0)
    budget_multiplier: float = opt("factor on every estimate (A.8)", 1.0, gt=0, renamed_from="alpha")
    seed: int = seed_option("seed of the split into fitting and calibration", 0)
