"""Which runs may stand in one comparison: those with the same decoding, scored by the same code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tale.config.recipes import plain, read_yaml
from tale.errors import UserError
from tale.storage.folder import RECIPE, check_recipe, read_run


def check_comparable(runs: Sequence[Path]) -> None:
    """Refuse to compare searches or evaluations, given by their folders, whose numbers mean different things.

    Raises:
        UserError: two of them decode differently, are scored differently, or were graded by different code; both and
            the difference are named. Or a folder is none of a run, or of one from before it was kept what graded it.
    """
    if not runs:
        return
    first, *others = [(folder, _meaning(folder)) for folder in runs]
    for folder, found in others:
        for name in first[1] | found:
            was, now = first[1].get(name), found.get(name)
            if was != now:
                raise UserError(
                    f"{first[0]} has {name}={was}, {folder} has {name}={now}: not to be compared; run one of them "
                    "again, as the other was"
                )


def run_folder(file: Path) -> Path:
    """The folder that says how these records or replies were made; of a search's joined parts, the first part's."""
    parts = sorted(file.parent.glob("shard-1-of-*"))
    return parts[0] if parts and not (file.parent / "recipe.yaml").is_file() else file.parent


def read_recipe(folder: Path) -> dict[str, Any]:
    """The resolved recipe that a run keeps, as plain values.

    Raises:
        UserError: there is none, or not that of the run.
    """
    check_recipe(folder)
    return plain(read_yaml(folder / RECIPE))


def _meaning(folder: Path) -> dict[str, Any]:
    """What its numbers depend on, besides models, methods and questions: the scoring, the decoding, and what graded."""
    recipe, run = read_recipe(folder), read_run(folder)
    sampling, seeds = recipe.get("sampling"), sorted(recipe.get("seeds") or [])
    grading = run.get("grading")
    if not isinstance(sampling, dict):
        raise UserError(f"{folder / 'recipe.yaml'}: has no sampling; only searches and evaluations are compared")
    if grading is None:
        raise UserError(
            f"{folder / 'run.json'}: does not say what graded it; run it again (its journal keeps the answers)"
        )
    scoring = {"scoring": run.get("scoring", "accuracy")}  # runs from before there was another do not say
    sampling = sampling | ({"seed": seeds[0]} if seeds else {})  # which they stand in for; a search has that one alone
    decoding = {f"sampling.{name}": value for name, value in sampling.items()}
    return scoring | {"seeds": seeds if len(seeds) > 1 else []} | decoding | {"grading": grading}
