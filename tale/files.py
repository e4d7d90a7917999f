"""Reading and writing JSON Lines and text: lines are named in errors, and no file is ever half written."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tale.errors import UserError


def read_jsonl(path: Path, parse_float: Callable[[str], Any] = float) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each object of a UTF-8 JSON Lines file with its line number from 1; blank lines are skipped.

    `parse_float=Decimal` keeps every digit of numbers with a point or an exponent.

    Raises:
        UserError: no such file, or a line that is no JSON object (cut off, or another format); file and line are named.
    """
    try:
        # Bytes split at "\n" alone: text may hold U+2028, which str.splitlines takes for the end of a line.
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _object(line, f"{path}:{number}", parse_float)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def write_atomic(path: Path, text: str) -> None:
    """Write a UTF-8 file so that at every moment, through a crash too, the old or the new one is there whole.

    Missing parent folders are made.
    """
    _replace(path, [text])


def write_jsonl_atomic(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one line of JSON a row, all or nothing as `write_atomic` does."""
    _replace(path, (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _replace(path: Path, parts: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
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
