"""The metadata of a run: the resolved recipe, the command, versions and commit, and its outputs' hashes.

Every command that writes a folder follows this order: check the input, lock the folder, start the run (which removes
the outputs of an earlier start), work, write the outputs, and finish the run, which records the outputs' hashes.
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
from tale.secrets import redact
from tale.storage.files import explain_write_errors, remove, write_atomic
from tale.storage.folder import RECIPE, RUN, ExampleCounts, RunMetadata, hash_path, locked, read_run

PACKAGES = ("lightning", "torch", "transformers", "peft", "bitsandbytes", "datasets", "omegaconf", "tensorboard")
# By metric: the grading source, a file or a folder, and the library it uses.
GRADERS = {"accuracy": ("grading", "mpmath"), "bleu": ("grading/bleu.py", "sacrebleu")}


@contextmanager
def lock_output(recipe: Any, folder: Path | None = None) -> Iterator[Path]:
    """Lock the run's folder (default: the recipe's output), and refuse a folder of another command.

    Raises:
        UserError: another process is writing there, the folder has results of another command, it is itself an output
            of another run (an adapter, say), or it cannot be written.
    """
    folder = folder or Path(recipe.output)
    if _is_output(Path(realpath(folder))):
        raise UserError(f"{folder}: is a result of the run in {folder.parent}; choose another output")
    with locked(folder):
        kind = read_run(folder).get("kind") if (folder / RUN).is_file() else None
        if kind not in (None, _kind(recipe)):
            raise UserError(f"{folder}: has the results of {kind}, this is {_kind(recipe)}; choose another output")
        yield folder


class RunInputs(TypedDict, total=False):
    """The base model or the models of a run, and how many questions or examples it has."""

    base: dict[str, str]
    models: list[dict[str, str]]
    questions: dict[str, int]
    examples: ExampleCounts


def start_run(
    recipe: Any,
    folder: Path | None = None,
    outputs: Sequence[str] = (),
    keep: bool = False,
    reads: Iterable[str | Path] = (),
    metric: str = "accuracy",
    **identity: Unpack[RunInputs],
) -> Path:
    """Remove the outputs of an earlier start, and write `recipe.yaml` and `run.json` to the folder, which is locked.

    `outputs` are the files and folders that this run may write. With `keep`, outputs that are finished stay: the same
    recipe wrote them. `reads` are the results of other runs that it uses, as the recipe names them. `metric` is a key
    of `GRADERS`.
    """
    folder, resolved = folder or Path(recipe.output), to_yaml(recipe)
    before = read_run(folder).get("outputs", {}) if (folder / RUN).is_file() else {}
    stay = before if keep else {}
    for name in {*outputs, *before}:
        if not stay.get(name):
            _forget(folder / name)
    write_atomic(folder / RECIPE, resolved)
    described: RunMetadata = {
        "kind": _kind(recipe),
        "command": shlex.join(map(redact, sys.argv)),
        **identity,
        "commit": code_version(),
        "code": code_hash(),
        "scoring": metric,
        "grading": grading_hash(metric),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "recipe": hash_path(folder / RECIPE),
        "inputs": {str(path): hash_path(Path(path)) for path in reads},
        "outputs": {name: stay.get(name) for name in outputs},
    }
    _write(folder, described)
    return folder


def finish_run(folder: Path) -> None:
    """Record the hashes of all outputs that exist in `run.json`.

    Raises:
        UserError: the folder was deleted since the run started.
    """
    if not (folder / RUN).is_file():
        raise UserError(f"{folder}: was deleted while the run was writing there; run the same command again")
    run = read_run(folder)
    run["outputs"] = {name: hash_path(folder / name) if (folder / name).exists() else None for name in run["outputs"]}
    _write(folder, run)


def _is_output(folder: Path) -> bool:
    try:
        return folder.name in read_run(folder.parent).get("outputs", {})
    except UserError:
        return False  # the parent folder has no run


def _kind(recipe: Any) -> str:
    return type(recipe).__name__.removesuffix("Recipe").lower()


def _write(folder: Path, run: RunMetadata) -> None:
    write_atomic(folder / RUN, json.dumps(run, indent=1, ensure_ascii=False) + "\n")


def _forget(path: Path) -> None:
    """Remove an output, and the draft of it that a killed process left."""
    with explain_write_errors(path):
        for found in [path, *path.parent.glob(f".{path.name}.*")]:
            remove(found)


def code_hash() -> str:
    """Hash of every source file of this package."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return digest.hexdigest()


def grading_hash(metric: str = "accuracy") -> str:
    """Hash of the code that grades answers: the source files and the version of the library they use."""
    name, library = GRADERS[metric]
    place = Path(__file__).parents[1] / name
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    source = b"".join(file.name.encode() + file.read_bytes() for file in files)
    return hashlib.sha256(source + metadata.version(library).encode()).hexdigest()[:16]


def code_version() -> str:
    """The commit of this checkout, with `-dirty` if files differ from it; "unknown" outside a checkout."""
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
