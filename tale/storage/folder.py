"""A run's folder: locked by one process at a time; `run.json` holds the hashes of its files."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, TypedDict

from tale.errors import UserError
from tale.storage.files import explain_write_errors
from tale.storage.strict_json import Count, read_json
from tale.text import log_warning

LOCK, RECIPE, RUN = ".lock", "recipe.yaml", "run.json"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock `folder` against other processes; it is created if missing.

    The kernel holds the lock (flock), so it ends with the process. On exit the lock file is removed, and so is a folder
    that was created here and stayed empty.

    Raises:
        UserError: another process has locked it, or it cannot be written.
    """
    new = not folder.exists()
    file = _acquire(folder)
    try:
        yield
    finally:
        if _same_file(folder / LOCK, file):  # else the folder was deleted and another process has created it again
            (folder / LOCK).unlink()
        file.close()
        if new:
            with suppress(OSError):  # not empty
                folder.rmdir()


class ExampleCounts(TypedDict, total=False):
    """How many examples a model or an estimator was trained on, and how many were left out."""

    train: Count
    vanilla_wrong: Count
    left_out: dict[str, Count]
    retokenised: Count
    held_out: Count


class RunMetadata(TypedDict, total=False):
    """`run.json`; older ones have fewer keys. `outputs`, `inputs`: hashes by path, None until the file is written."""

    kind: str
    command: str
    base: dict[str, str]
    models: list[dict[str, str]]
    questions: dict[str, Count]
    examples: ExampleCounts
    commit: str
    code: str
    scoring: str  # the metric
    grading: str
    python: str
    machine: str
    packages: dict[str, str]
    recipe: str
    inputs: dict[str, str]
    outputs: dict[str, str | None]


def read_run(folder: Path) -> RunMetadata:
    """The `run.json` of a run.

    Raises:
        UserError: it is missing or damaged.
    """
    return read_json(folder / RUN, RunMetadata, "a run's metadata", "is this the folder of a run?")


def hash_path(path: Path) -> str:
    """Hash of a file's bytes, or of the names and bytes of all files in a folder, hidden ones left out."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.startswith(".")]
    named = "".join(f"{file.relative_to(path).as_posix()}\0{hash_path(file)}\0" for file in files)
    return hashlib.sha256(named.encode()).hexdigest()[:16]


def check_recipe(folder: Path) -> RunMetadata:
    """The `run.json` of a folder, after checking that recipe.yaml is the one it was written with; empty without one.

    Raises:
        UserError: the recipe was changed, or is missing.
    """
    if not (folder / RUN).is_file():
        return {}
    run = read_run(folder)
    if "outputs" not in run:
        _warn(folder)
    elif not (folder / RECIPE).is_file():
        raise UserError(f"{folder}: has {RUN} but no {RECIPE}; copy the whole folder, or run it again")
    elif hash_path(folder / RECIPE) != run.get("recipe"):
        raise UserError(f"{folder / RECIPE}: not the recipe of this run, see {RUN}; restore it, or run it again")
    return run


def check_output(path: Path) -> None:
    """Refuse a file or folder that differs from what the run in its parent folder wrote; without a run.json accept it.

    Raises:
        UserError: it belongs to another run or an earlier start, is not finished, or the run's recipe was changed.
    """
    run = check_recipe(path.parent)
    if "outputs" not in run or not path.exists():
        return
    if not (made := run["outputs"].get(path.name)):
        raise UserError(f"{path}: the run in {path.parent} has not finished it, or did not write it; run it again")
    if hash_path(path) != made:
        raise UserError(
            f"{path}: changed since the run in {path.parent} wrote it; restore it, run it again, or move it to a "
            "separate folder"
        )


def is_finished(path: Path) -> bool:
    """Whether the run in the parent folder has finished this output; without a run.json, whether it exists.

    Raises:
        UserError: the run finished it, and it is missing or was changed since.
    """
    outputs = check_recipe(path.parent).get("outputs")
    if outputs is None:
        return path.exists()
    if outputs.get(path.name) and not path.exists():
        raise UserError(f"{path}: is missing, though the run finished it; copy the whole folder, or run it again")
    if outputs.get(path.name):
        check_output(path)
    return bool(outputs.get(path.name))


@cache  # one warning per folder
def _warn(folder: Path) -> None:
    log_warning(f"warning: {folder}: written by an earlier version without hashes; its files were not checked")


def _acquire(folder: Path) -> IO[bytes]:
    with explain_write_errors(folder):
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                file = (folder / LOCK).open("ab")
            except FileNotFoundError:  # the process that had locked it has just removed the folder
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.close()
                raise UserError(
                    f"{folder}: another process is writing there; wait until it ends, or choose another output"
                ) from error
            if _same_file(folder / LOCK, file):
                return file
            file.close()  # the process that had locked it has just removed the file


def _same_file(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except OSError:
        return False
