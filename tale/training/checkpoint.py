"""Checkpoints: adapter, optimizer, schedule and step, written atomically, refused under another recipe or data.

The random state needs no storing of its own: dropout and data order are functions of (seed, step, rank), see
`tale.training.loop`, so the step restores both, on any number of processes for the order.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from lightning import Fabric

from tale.config import TrainRecipe
from tale.data.datamodule import TaleDataModule
from tale.errors import UserError
from tale.recipes import to_yaml

KEEP = 2


def fingerprint(recipe: TrainRecipe, base: dict[str, str], data: TaleDataModule, world_size: int) -> dict[str, str]:
    """What a checkpoint must agree on with the run that resumes it."""
    ids = repr([(e.prompt, e.answers) for e in data.train]).encode()
    sections = {name: to_yaml(getattr(recipe, name)) for name in ("loss", "lora", "optim", "train")}
    return {
        **sections,
        "objective": recipe.objective.value,
        "precision": f"{recipe.model.dtype.value} {recipe.fabric.precision}",
        "model": f"{base['name']} {base['weights']}",
        "data": hashlib.sha256(ids).hexdigest()[:16],
        "devices": str(world_size),
    }


def save(fabric: Fabric, folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write `step-<n>.ckpt` with the adapter's parameters alone, then drop all but the newest two."""
    folder.mkdir(exist_ok=True)
    file = folder / f"step-{step:06d}.ckpt"
    draft = file.with_suffix(".draft")
    fabric.save(draft, {**state, "step": step}, filter={"module": lambda name, _: "lora_" in name})
    if fabric.is_global_zero:
        draft.rename(file)
        for old in _all(folder)[:-KEEP]:
            old.unlink()
    fabric.barrier()


def newest_step(folder: Path) -> int:
    """The step that a resumed run goes on from; 0 where there is no checkpoint."""
    return int(_all(folder)[-1].stem.removeprefix("step-")) if _all(folder) else 0


def check(fabric: Fabric, folder: Path, identity: dict[str, str]) -> None:
    """Refuse to go on from the newest checkpoint of another run.

    Raises:
        UserError: it cannot be read, or belongs to another recipe, model or data set.
    """
    file = _all(folder)[-1]
    try:
        saved = fabric.load(file)["fingerprint"]
    except Exception as error:
        raise UserError(f"{file}: damaged ({error}); delete it to go on from the one before") from error
    if changed := [key for key, value in identity.items() if saved.get(key) != value]:
        raise UserError(f"{file}: made under another {', '.join(changed)}; use another output folder, or resume=null")


def load(fabric: Fabric, folder: Path, state: dict[str, Any]) -> None:
    """Load the newest checkpoint into `state`."""
    fabric.load(_all(folder)[-1], state=state, strict=False)


def clear(fabric: Fabric, folder: Path) -> None:
    """Forget an earlier run's checkpoints, when a run starts anew in its folder."""
    if fabric.is_global_zero:
        for file in _all(folder):
            file.unlink()
    fabric.barrier()


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.ckpt"))
