"""Several recipes one after the other, each run only if its recipe, its inputs or the code have changed."""

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
from tale.storage.folder import RUN, digest, held
from tale.storage.strict_json import read_file
from tale.text import say

STAMP = "stage.json"


@dataclass(frozen=True)
class Stage:
    """A recipe, what runs it, and the recipes whose results it reads."""

    kind: type[Any]
    recipe: str
    run: Callable[[Any], Any]
    reads: Sequence[str] = ()
    overrides: Sequence[str] = ()

    def key(self, recipe: Any, keys: dict[str, str]) -> str:
        """Changes with the resolved recipe, its model's weights, any code of this package, and the stages it reads."""
        weights = resolve(recipe.model).fingerprint
        parts = [to_yaml(recipe), weights, code_hash(), *(keys[name] for name in self.reads)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Stamp:
    """What a stage leaves in its folder: the key under which it was begun, and the run with which it came to its end.

    The run is known by the hash of its `run.json`: another one once the same command was given there with other
    settings. Stamps of an earlier version say `true`.
    """

    key: str
    done: str | bool = False


def run_stages(stages: Sequence[Stage]) -> None:
    """Run each stage that is not already done; a stage cut short goes on from its own journal or checkpoint."""
    keys: dict[str, str] = {}
    recipes = [load(stage.kind, [f"recipe={stage.recipe}", *stage.overrides]) for stage in stages]
    for number, (stage, recipe) in enumerate(zip(stages, recipes, strict=True), 1):
        keys[stage.recipe] = key = stage.key(recipe, keys)
        folder = Path(recipe.output)
        stamp = folder / STAMP
        state = read_file(stamp, Stamp, "a stage's stamp", "delete it") if stamp.is_file() else None
        title = f"[{number}/{len(stages)}] {stage.recipe}"
        if state and state.done and state == Stamp(key, digest(folder / RUN)):
            say(f"{title}: done before, in {recipe.output}")
            continue
        say(f"{title}: {str(stage.kind.__doc__).splitlines()[0]}")
        if state is None or state.key != key:
            with held(folder):
                _forget(folder)
                write_atomic(stamp, json.dumps(vars(Stamp(key))))
        stage.run(recipe)
        write_atomic(stamp, json.dumps(vars(Stamp(key, digest(folder / RUN)))))


def _forget(folder: Path) -> None:
    """Drop the half-done work of another recipe or of other code: it must not be gone on with."""
    for file in [*folder.glob("journal*.jsonl"), *folder.glob("checkpoints/*.ckpt"), *folder.glob("events.out.*")]:
        file.unlink()
