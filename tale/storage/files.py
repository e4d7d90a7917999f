"""Atomic writing of text, JSON Lines and folders. `tale.storage.strict_json` reads JSON back."""

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
from tale.text import log_warning


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file (text in UTF-8) atomically: after a crash either the old or the new content is there.

    Missing parent folders are created.
    """
    _replace(path, [content])


def write_jsonl_atomic(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one line of JSON per row, atomically as `write_atomic` does."""
    _replace(path, (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


class AppendOnlyJsonl:
    """A JSON Lines file that grows by complete lines; its writer has locked the folder.

    Opening changes nothing. The first append creates the file, and drops, with a warning, a last line that a killed
    process left incomplete. Iterating yields each line's byte offset and content.

    Raises:
        UserError: the file cannot be read or written (a full disk, say). Lines appended before stay intact.
    """

    def __init__(self, path: Path):
        self.path = path
        self.file: IO[bytes] | None = None
        with explain_write_errors(path):
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
        """Write one line and return its offset. It survives a killed process; after `sync` it survives a power cut."""
        with explain_write_errors(self.path):
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
        """Flush all appended lines to disk (fsync)."""
        if self.file:
            with explain_write_errors(self.path):
                os.fsync(self.file.fileno())

    def read(self, place: int) -> bytes:
        """The line at this offset."""
        assert self.reader
        self.reader.seek(place)
        return self.reader.readline()

    def close(self) -> None:
        """Close the file."""
        for file in (self.reader, self.file):
            if file:
                file.close()

    def _open(self) -> IO[bytes]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("ab", buffering=0)
        if self.size < file.tell():
            log_warning(f"{self.path}: dropped a half-written last line")
            file.truncate(self.size)
        self.reader = self.reader or self.path.open("rb")
        return file

    def _whole_lines(self) -> int:
        """Bytes up to the end of the last complete line."""
        if not self.reader or not self.reader.seek(0, os.SEEK_END):
            return 0
        with mmap(self.reader.fileno(), 0, access=ACCESS_READ) as content:  # mapped, not loaded into memory
            return content.rfind(b"\n") + 1


@contextmanager
def explain_write_errors(path: Path, remedy: str = "choose another output") -> Iterator[None]:
    """Turn an OSError while writing to `path` into a UserError that names it and the `remedy` besides freeing space.

    Raises:
        UserError: writing failed.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"{path}: cannot be written ({reason}). Nothing written before is lost: free disk space, or {remedy}, and "
            "run the same command again"
        ) from error


@contextmanager
def atomic_folder(path: Path, remedy: str = "choose another output") -> Iterator[Path]:
    """A draft folder that is renamed to `path` when the block completes, and removed when it fails.

    Raises:
        UserError: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.draft")
    with explain_write_errors(path, remedy):
        remove(draft)
        draft.mkdir(parents=True)
        try:
            yield draft
            draft.rename(path)
        finally:
            remove(draft)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _replace(path: Path, parts: Iterable[str | bytes]) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = temporary.open("wb")
    try:
        for part in parts:  # an error of the iterator itself is not a write error
            with explain_write_errors(path):
                file.write(part.encode() if isinstance(part, str) else part)
        with explain_write_errors(path):
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with suppress(OSError):  # on a full disk, flushing the buffer fails too
            file.close()
        temporary.unlink(missing_ok=True)
