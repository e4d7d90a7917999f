"""Several recipes one after the other, each run only if its recipe, its inputs or the code have changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tale.files import write_atomic
from tale.models.base import resolve
from tale.reading import read_file
from tale.recipes import load, to_yaml
from tale.runs import code_hash
from tale.text import say

STAMP = "stage.json"


@dataclass(frozen=True)
class Stage:
    """A recipe, what runs it, and the recipes whose results it reads."""

    kind: type
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
    """What a stage leaves in its folder: the key under which it was begun, and whether it came to its end."""

    key: str
    done: bool


def run_stages(stages: Sequence[Stage]) -> None:
    """Run each stage that is not already done; a stage cut short goes on from its own journal or checkpoint."""
    keys: dict[str, str] = {}
    recipes = [load(stage.kind, [f"recipe={stage.recipe}", *stage.overrides]) for stage in stages]
    for number, (stage, recipe) in enumerate(zip(stages, recipes, strict=True), 1):
        keys[stage.recipe] = key = stage.key(recipe, keys)
        stamp = Path(recipe.output) / STAMP
        state = read_file(stamp, Stamp, "a stage's stamp", "delete it") if stamp.is_file() else None
        title = f"[{number}/{len(stages)}] {stage.recipe}"
        if state == Stamp(key, done=True):
            say(f"{title}: done before, in {recipe.output}")
            continue
        say(f"{title}: {stage.kind.__doc__.splitlines()[0]}")
        if state is None or state.key != key:
            _forget(stamp.parent)
            write_atomic(stamp, json.dumps(vars(Stamp(key, done=False))))
        stage.run(recipe)
        write_atomic(stamp, json.dumps(vars(Stamp(key, done=True))))


def _forget(folder: Path) -> None:
    """Drop the half-done work of another recipe or of other code: it must not be gone on with."""
    for file in [*folder.glob("journal*.jsonl"), *folder.glob("checkpoints/*.ckpt"), *folder.glob("events.out.*")]:
        file.unlink()
