"""Reading and writing JSON Lines and text: lines are named in errors, and no file is ever half written."""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from tale.errors import UserError


def read_jsonl(
    path: Path, parse_float: Callable[[str], Any] = float, growing: bool = False
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each object of a UTF-8 JSON Lines file with its line number from 1; blank lines are skipped.

    `parse_float=Decimal` keeps every digit of numbers with a point or an exponent. In a `growing` file a last line
    without its end is skipped too: it is being written, or its writer was killed.

    Raises:
        UserError: no such file, or a line that is no JSON object (cut off, or another format); file and line are named.
    """
    try:
        # Bytes split at "\n" alone: text may hold U+2028, which str.splitlines takes for the end of a line.
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip() and not (growing and not line.endswith(b"\n")):
                    yield number, _object(line, f"{path}:{number}", parse_float)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file (text in UTF-8) so that at every moment, through a crash too, the old or the new one is there whole.

    Missing parent folders are made.
    """
    _replace(path, [content])


def write_jsonl_atomic(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one line of JSON a row, all or nothing as `write_atomic` does."""
    _replace(path, (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


class AppendedJsonl:
    """A JSON Lines file that grows by whole lines, written by one process at a time.

    A last line that a kill left half written is dropped on opening, with a word. Iterating gives each line's place and
    object.

    Raises:
        UserError: the file cannot be opened or written (a full disk, say), or another process is writing it. What was
            appended before stays whole.
    """

    def __init__(self, path: Path):
        self.path = path
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = path.open("a+b", buffering=0)
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                advice = "wait for its end, or choose another output"
                raise UserError(f"{path}: another process is writing it; {advice}") from error
            self.reader = path.open("rb")
        self.size = self._drop_half_a_line()

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        place = self.reader.seek(0)
        for number, line in enumerate(self.reader, 1):
            yield place, _object(line, f"{self.path}:{number}", float)
            place += len(line)

    def append(self, row: dict[str, Any]) -> int:
        """Write one line and return its place. It survives the end of this process; `sync` makes it safe for good."""
        place, line = self.size, json.dumps(row, ensure_ascii=False).encode() + b"\n"
        with _explained(self.path):
            try:
                while line:
                    line = line[self.file.write(line) :]
            except OSError:
                self.file.truncate(place)
                raise
        self.size = self.file.tell()
        return place

    def sync(self) -> None:
        """Have the system put on disk what was appended."""
        with _explained(self.path):
            os.fsync(self.file.fileno())

    def read(self, place: int) -> dict[str, Any]:
        """The line at this place."""
        self.reader.seek(place)
        return json.loads(self.reader.readline())

    def close(self) -> None:
        """Let others write it."""
        self.reader.close()
        self.file.close()

    def _drop_half_a_line(self) -> int:
        size = self.reader.seek(0, os.SEEK_END)
        if not size:
            return 0
        with mmap(self.reader.fileno(), 0, access=ACCESS_READ) as content:  # however long, not read whole
            whole = content.rfind(b"\n") + 1
        if whole < size:
            print(f"{self.path}: dropped a half-written last line")
            self.file.truncate(whole)
        return whole


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}). Nothing written before is lost: make room, or choose "
            "another output, and give the same command again"
        ) from error


def _replace(path: Path, parts: Iterable[str | bytes]) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = temporary.open("wb")
    try:
        for part in parts:  # what makes a part may fail for a reason of its own
            with _explained(path):
                file.write(part.encode() if isinstance(part, str) else part)
        with _explained(path):
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with suppress(OSError):  # a disk that is full is so for what waits in the file's buffer, too
            file.close()
        temporary.unlink(missing_ok=True)


def _object(line: bytes, where: str, parse_float: Callable[[str], Any]) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig"), parse_float=parse_float)
    except (ValueError, RecursionError) as error:
        hint = "the file is cut off or is not JSON Lines; fetch it again or delete the line"
        raise UserError(f"{where}: not a whole JSON object ({error}): {hint}") from error
    if not isinstance(row, dict):
        raise UserError(f"{where}: a JSON {type(row).__name__}, not an object: write one {{…}} a line")
    return row
