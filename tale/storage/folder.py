"""A run's folder: written by one process at a time, and its files known by what `run.json` says of them."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Literal, TypedDict

from tale.errors import UserError
from tale.storage.files import explained
from tale.storage.strict_json import Count, read_file
from tale.text import warn

LOCK, RECIPE, RUN = ".lock", "recipe.yaml", "run.json"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep every other process from writing `folder`, which is made where it is missing.

    The lock is the kernel's, so it ends with the process, however that ends. Its file is removed on leaving, and so is
    a folder that was made for it and stayed empty.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    new = not folder.exists()
    file = _locked(folder)
    try:
        yield
    finally:
        if _is(folder / LOCK, file):  # else the folder was deleted, and what is there now is another process's
            (folder / LOCK).unlink()
        file.close()
        if new:
            with suppress(OSError):  # not empty
                folder.rmdir()


Scoring = Literal["accuracy", "bleu"]


class Examples(TypedDict, total=False):
    """What a training, or an estimator's, was on."""

    train: Count
    vanilla_wrong: Count
    left_out: dict[str, Count]
    retokenised: Count
    held_out: Count


class RunFile(TypedDict, total=False):
    """`run.json`; older ones have fewer keys. `outputs`, `inputs`: hashes by path, None where there is none yet."""

    kind: str
    command: str
    base: dict[str, str]
    models: list[dict[str, str]]
    questions: dict[str, Count]
    examples: Examples
    commit: str
    code: str
    scoring: Scoring
    grading: str
    python: str
    machine: str
    packages: dict[str, str]
    recipe: str
    inputs: dict[str, str]
    outputs: dict[str, str | None]


def read_run(folder: Path) -> RunFile:
    """The `run.json` of a run.

    Raises:
        UserError: there is none, or a damaged one.
    """
    return read_file(folder / RUN, RunFile, "what a run keeps of itself", "is this the folder of a run?")


def digest(path: Path) -> str:
    """Hash of a file's bytes, or of all files in a folder and their names, hidden ones left out."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.startswith(".")]
    named = "".join(f"{file.relative_to(path).as_posix()}\0{digest(file)}\0" for file in files)
    return hashlib.sha256(named.encode()).hexdigest()[:16]


def check_recipe(folder: Path) -> RunFile:
    """The `run.json` of a folder, whose recipe is the one that it was written with; empty where there is none.

    Raises:
        UserError: the recipe is another one, or missing.
    """
    if not (folder / RUN).is_file():
        return {}
    run = read_run(folder)
    if "outputs" not in run:
        _warn(folder)
    elif not (folder / RECIPE).is_file():
        raise UserError(f"{folder}: has {RUN} but no {RECIPE}; copy the whole folder, or run it again")
    elif digest(folder / RECIPE) != run.get("recipe"):
        raise UserError(f"{folder / RECIPE}: not the recipe of this run, see {RUN}; put it back, or run it again")
    return run


def check_output(path: Path) -> None:
    """Refuse a file, or a folder, that the run beside it has not made. Without a run beside it nothing is known.

    Raises:
        UserError: it is of another run, of an earlier start or not finished, or the run's recipe is not its own.
    """
    run = check_recipe(path.parent)
    if "outputs" not in run or not path.exists():
        return
    if not (made := run["outputs"].get(path.name)):
        raise UserError(f"{path}: the run in {path.parent} has not finished it, or it is another run's; run it again")
    if digest(path) != made:
        raise UserError(
            f"{path}: not as the run in {path.parent} has written it; put it back, run it again, or move it to a "
            "folder of its own"
        )


def finished(path: Path) -> bool:
    """Whether the run beside it has come to this output; where it does not say, whether it is there.

    Raises:
        UserError: the run has made it, and it is not there any more, or not as it was.
    """
    outputs = check_recipe(path.parent).get("outputs")
    if outputs is None:
        return path.exists()
    if outputs.get(path.name) and not path.exists():
        raise UserError(f"{path}: is missing, though the run has made it; copy the whole folder, or run it again")
    if outputs.get(path.name):
        check_output(path)
    return bool(outputs.get(path.name))


@cache  # once
def _warn(folder: Path) -> None:
    warn(f"warning: {folder}: by an earlier version, which kept no hashes; whose its files are was not checked")


def _locked(folder: Path) -> IO[bytes]:
    with explained(folder):
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                file = (folder / LOCK).open("ab")
            except FileNotFoundError:  # who held it has just removed the folder
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.close()
                advice = "wait for its end, or choose another output"
                raise UserError(f"{folder}: another process is writing there; {advice}") from error
            if _is(folder / LOCK, file):
                return file
            file.close()  # who held it has just removed it


def _is(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except OSError:
        return False
