"""Several recipes in sequence, each run only if its recipe, its inputs or the code have changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tale.config.recipes import load, to_yaml
from tale.models.base import resolve
from tale.runs.run import code_hash
from tale.storage.files import write_atomic
from tale.storage.folder import RUN, hash_path, locked
from tale.storage.strict_json import read_json
from tale.text import log_info

STAMP = "stage.json"


@dataclass(frozen=True)
class Stage:
    """A recipe, the function that runs it, and the recipes whose results it reads."""

    kind: type[Any]
    recipe: str
    run: Callable[[Any], Any]
    reads: Sequence[str] = ()
    overrides: Sequence[str] = ()

    def key(self, recipe: Any, keys: dict[str, str]) -> str:
        """Hash of the resolved recipe, its model's weights, all code of this package, and the stages it reads."""
        weights = resolve(recipe.model).fingerprint
        parts = [to_yaml(recipe), weights, code_hash(), *(keys[name] for name in self.reads)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Stamp:
    """`stage.json` in a stage's folder: the key it was started with, and the hash of the finished run's `run.json`.

    The hash differs once the same command has run there with other settings. Stamps of an earlier version say `true`.
    """

    key: str
    done: str | bool = False


def run_stages(stages: Sequence[Stage]) -> None:
    """Run each stage that is not done; an interrupted stage resumes from its journal or checkpoint."""
    keys: dict[str, str] = {}
    recipes = [load(stage.kind, [f"recipe={stage.recipe}", *stage.overrides]) for stage in stages]
    for number, (stage, recipe) in enumerate(zip(stages, recipes, strict=True), 1):
        keys[stage.recipe] = key = stage.key(recipe, keys)
        folder = Path(recipe.output)
        stamp = folder / STAMP
        state = read_json(stamp, Stamp, "a stage's stamp", "delete it") if stamp.is_file() else None
        title = f"[{number}/{len(stages)}] {stage.recipe}"
        if state and state.done and state == Stamp(key, hash_path(folder / RUN)):
            log_info(f"{title}: done before, in {recipe.output}")
            continue
        log_info(f"{title}: {str(stage.kind.__doc__).splitlines()[0]}")
        if state is None or state.key != key:
            with locked(folder):
                _forget(folder)
                write_atomic(stamp, json.dumps(vars(Stamp(key))))
        stage.run(recipe)
        write_atomic(stamp, json.dumps(vars(Stamp(key, hash_path(folder / RUN)))))


def _forget(folder: Path) -> None:
    """Remove the unfinished work of another recipe or of other code, so that it is not resumed."""
    for file in [*folder.glob("journal*.jsonl"), *folder.glob("checkpoints/*.ckpt"), *folder.glob("events.out.*")]:
        file.unlink()
