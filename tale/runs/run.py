"""What every run keeps of itself: the resolved recipe, the command, versions and commit, and its outputs' hashes.

Every command that writes a folder has this order: it checks its input, holds the folder, starts the run (which forgets
an earlier start's outputs), works, writes its outputs, and finishes the run, which says that they are its own.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from os.path import realpath
from pathlib import Path
from typing import Any, TypedDict, Unpack

from tale.config.recipes import to_yaml
from tale.errors import UserError
from tale.secrets import veiled
from tale.storage.files import explained, remove, write_atomic
from tale.storage.folder import RECIPE, RUN, Examples, RunFile, Scoring, digest, held, read_run

PACKAGES = ("lightning", "torch", "transformers", "peft", "bitsandbytes", "datasets", "omegaconf", "tensorboard")
# By scoring: the source that grades, a file or a folder, and the library it asks.
GRADERS = {"accuracy": ("grading", "mpmath"), "bleu": ("grading/bleu.py", "sacrebleu")}


@contextmanager
def hold(recipe: Any, folder: Path | None = None) -> Iterator[Path]:
    """Keep other processes from the run's folder (default: its output), and the run from another command's.

    Raises:
        UserError: another process is writing there, it holds what another command has made, it is itself a result of
            another run (an adapter, say), or it cannot be written.
    """
    folder = folder or Path(recipe.output)
    if _is_output(Path(realpath(folder))):
        raise UserError(f"{folder}: is a result of the run in {folder.parent}; choose another output")
    with held(folder):
        kind = read_run(folder).get("kind") if (folder / RUN).is_file() else None
        if kind not in (None, _kind(recipe)):
            raise UserError(f"{folder}: has the results of {kind}, this is {_kind(recipe)}; choose another output")
        yield folder


class Identity(TypedDict, total=False):
    """What a run uses: the base model or several models, and how many questions or examples."""

    base: dict[str, str]
    models: list[dict[str, str]]
    questions: dict[str, int]
    examples: Examples


def start_run(
    recipe: Any,
    folder: Path | None = None,
    outputs: Sequence[str] = (),
    keep: bool = False,
    reads: Iterable[str | Path] = (),
    scoring: Scoring = "accuracy",
    **identity: Unpack[Identity],
) -> Path:
    """Forget the outputs of an earlier start, and write `recipe.yaml` and `run.json` into the folder, which is held.

    `outputs` are the files and folders that this run may come to. With `keep`, finished ones of before stay: they were
    made by the same recipe. `reads` are results of other runs that go into it, as the recipe names them. `scoring` is a
    key of `GRADERS`, `identity` says what the run uses.
    """
    folder, resolved = folder or Path(recipe.output), to_yaml(recipe)
    before = read_run(folder).get("outputs", {}) if (folder / RUN).is_file() else {}
    stay = before if keep else {}
    for name in {*outputs, *before}:
        if not stay.get(name):
            _forget(folder / name)
    write_atomic(folder / RECIPE, resolved)
    described: RunFile = {
        "kind": _kind(recipe),
        "command": shlex.join(map(veiled, sys.argv)),
        **identity,
        "commit": code_version(),
        "code": code_hash(),
        "scoring": scoring,
        "grading": grading_hash(scoring),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "recipe": digest(folder / RECIPE),
        "inputs": {str(path): digest(Path(path)) for path in reads},
        "outputs": {name: stay.get(name) for name in outputs},
    }
    _write(folder, described)
    return folder


def finish_run(folder: Path) -> None:
    """Say in `run.json` that the outputs which are there are this run's, by their hashes.

    Raises:
        UserError: the folder was deleted since the run has started.
    """
    if not (folder / RUN).is_file():
        raise UserError(f"{folder}: was deleted while the run was writing there; give the same command again")
    run = read_run(folder)
    run["outputs"] = {name: digest(folder / name) if (folder / name).exists() else None for name in run["outputs"]}
    _write(folder, run)


def _is_output(folder: Path) -> bool:
    try:
        return folder.name in read_run(folder.parent).get("outputs", {})
    except UserError:
        return False  # no run is there


def _kind(recipe: Any) -> str:
    return type(recipe).__name__.removesuffix("Recipe").lower()


def _write(folder: Path, run: RunFile) -> None:
    write_atomic(folder / RUN, json.dumps(run, indent=1, ensure_ascii=False) + "\n")


def _forget(path: Path) -> None:
    """Remove an output, and what a kill left of a draft of it."""
    with explained(path):
        for found in [path, *path.parent.glob(f".{path.name}.*")]:
            remove(found)


def code_hash() -> str:
    """Hash of every source file of this package."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return digest.hexdigest()


def grading_hash(scoring: str = "accuracy") -> str:
    """Hash of what decides how good an answer is: the source that reads and compares it, and the library's version."""
    name, library = GRADERS[scoring]
    place = Path(__file__).parents[1] / name
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    source = b"".join(file.name.encode() + file.read_bytes() for file in files)
    return hashlib.sha256(source + metadata.version(library).encode()).hexdigest()[:16]


def code_version() -> str:
    """The commit of this checkout, with `-dirty` where files differ from it; "unknown" outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
