"""Writing JSON Lines and text: no file is ever half written. `tale.storage.strict_json` reads them back."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from tale.errors import UserError
from tale.text import warn


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file (text in UTF-8) so that at every moment, through a crash too, the old or the new one is there whole.

    Missing parent folders are made.
    """
    _replace(path, [content])


def write_jsonl_atomic(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one line of JSON a row, all or nothing as `write_atomic` does."""
    _replace(path, (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


class AppendedJsonl:
    """A JSON Lines file that grows by whole lines; its folder is held by who writes it.

    Opening it changes nothing. With the first line that is appended it is made, and a last line that a kill left half
    written is dropped, with a word. Iterating gives each line's place and bytes.

    Raises:
        UserError: the file cannot be read or written (a full disk, say). What was appended before stays whole.
    """

    def __init__(self, path: Path):
        self.path = path
        self.file: IO[bytes] | None = None
        with explained(path):
            self.reader = path.open("rb") if path.exists() else None
        self.size = self._whole_lines()

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        if not self.reader:
            return
        place = self.reader.seek(0)
        for line in self.reader:
            if place == self.size:
                return
            yield place, line
            place += len(line)

    def append(self, row: dict[str, Any]) -> int:
        """Write one line and return its place. It survives the end of this process; `sync` makes it safe for good."""
        with explained(self.path):
            file = self.file = self.file or self._open()
            place, line = self.size, json.dumps(row, ensure_ascii=False).encode() + b"\n"
            try:
                while line:
                    line = line[file.write(line) :]
            except OSError:
                file.truncate(place)
                raise
        self.size = file.tell()
        return place

    def sync(self) -> None:
        """Have the system put on disk what was appended."""
        if self.file:
            with explained(self.path):
                os.fsync(self.file.fileno())

    def read(self, place: int) -> bytes:
        """The line at this place."""
        assert self.reader
        self.reader.seek(place)
        return self.reader.readline()

    def close(self) -> None:
        """Let go of it."""
        for file in (self.reader, self.file):
            if file:
                file.close()

    def _open(self) -> IO[bytes]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("ab", buffering=0)
        if self.size < file.tell():
            warn(f"{self.path}: dropped a half-written last line")
            file.truncate(self.size)
        self.reader = self.reader or self.path.open("rb")
        return file

    def _whole_lines(self) -> int:
        """How many bytes they have."""
        if not self.reader or not self.reader.seek(0, os.SEEK_END):
            return 0
        with mmap(self.reader.fileno(), 0, access=ACCESS_READ) as content:  # however long, not read whole
            return content.rfind(b"\n") + 1


@contextmanager
def explained(path: Path, remedy: str = "choose another output") -> Iterator[None]:
    """What is written here, to `path`: an error of the system becomes one that names it, and what else than room helps.

    Raises:
        UserError: it cannot be written.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"{path}: cannot be written ({reason}). Nothing written before is lost: make room, or {remedy}, and "
            "give the same command again"
        ) from error


@contextmanager
def new_folder(path: Path, remedy: str = "choose another output") -> Iterator[Path]:
    """A draft to be filled, which then becomes the folder `path`: whole, or not at all.

    Raises:
        UserError: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.draft")
    with explained(path, remedy):
        remove(draft)
        draft.mkdir(parents=True)
        try:
            yield draft
            draft.rename(path)
        finally:
            remove(draft)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _replace(path: Path, parts: Iterable[str | bytes]) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = temporary.open("wb")
    try:
        for part in parts:  # what makes a part may fail for a reason of its own
            with explained(path):
                file.write(part.encode() if isinstance(part, str) else part)
        with explained(path):
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with suppress(OSError):  # a disk that is full is so for what waits in the file's buffer, too
            file.close()
        temporary.unlink(missing_ok=True)
