"""Which runs can be compared: those with the same decoding, scored by the same code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tale.config.recipes import read_yaml, to_container
from tale.errors import UserError
from tale.storage.folder import RECIPE, check_recipe, read_run


def check_comparable(runs: Sequence[Path]) -> None:
    """Refuse to compare searches or evaluations, given by their folders, whose numbers mean different things.

    Raises:
        UserError: two of them decode or score differently, or were graded by different code; both and the difference
            are named. Or a folder has no run, or one of an earlier version that did not record the grading code.
    """
    if not runs:
        return
    first, *others = [(folder, _comparability(folder)) for folder in runs]
    for folder, found in others:
        for name in first[1] | found:
            was, now = first[1].get(name), found.get(name)
            if was != now:
                raise UserError(
                    f"{first[0]} has {name}={was}, {folder} has {name}={now}: they cannot be compared; run one of them "
                    "again with the other's settings"
                )


def run_folder(file: Path) -> Path:
    """The run folder of a file of records or replies; for the joined shards of a search, that of the first shard."""
    parts = sorted(file.parent.glob("shard-1-of-*"))
    return parts[0] if parts and not (file.parent / "recipe.yaml").is_file() else file.parent


def read_recipe(folder: Path) -> dict[str, Any]:
    """The resolved recipe of a run, as plain values.

    Raises:
        UserError: it is missing, or was changed.
    """
    check_recipe(folder)
    return to_container(read_yaml(folder / RECIPE))


def _comparability(folder: Path) -> dict[str, Any]:
    """What a run's numbers depend on besides models, methods and questions: scoring, decoding and grading code."""
    recipe, run = read_recipe(folder), read_run(folder)
    sampling, seeds = recipe.get("sampling"), sorted(recipe.get("seeds") or [])
    grading = run.get("grading")
    if not isinstance(sampling, dict):
        raise UserError(f"{folder / 'recipe.yaml'}: has no sampling; only searches and evaluations are compared")
    if grading is None:
        raise UserError(f"{folder / 'run.json'}: names no grading code; run it again (its journal has the answers)")
    scoring = {
        "scoring": run.get("scoring", "accuracy")
    }  # missing in runs of earlier versions, which had accuracy only
    sampling = sampling | ({"seed": seeds[0]} if seeds else {})  # seeds replace it; a search has only this one
    decoding = {f"sampling.{name}": value for name, value in sampling.items()}
    return scoring | {"seeds": seeds if len(seeds) > 1 else []} | decoding | {"grading": grading}
