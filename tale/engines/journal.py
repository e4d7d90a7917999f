"""Completions on disk before they are used: a killed search or evaluation goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from tale.engines.base import Completion, Engine, Request, Sampling
from tale.errors import UserError
from tale.files import read_jsonl


class JournaledEngine:
    """`engine`, with every completion appended to `file`, and answered from there when it is asked again.

    A completion is known by its prompt, sample and sampling; `identity` (the model, and the adapter if any) by the
    journal's first line.

    Raises:
        UserError: on opening, when the journal was written with another identity, or a line is damaged.
    """

    def __init__(self, engine: Engine, file: Path, identity: dict[str, str]):
        self.engine = engine
        self.known: dict[str, Completion] = {}
        _drop_half_a_line(file)
        lines = list(read_jsonl(file)) if file.exists() else []
        if lines and lines[0][1] != identity:
            raise UserError(f"{file}: written with {lines[0][1]}, this run has {identity}; use another output folder")
        for number, line in lines[1:]:
            try:
                key = line.pop("key")
                self.known[key] = Completion(**line)
            except (KeyError, TypeError) as error:
                raise UserError(f"{file}:{number}: not a journalled answer ({error}); delete the line") from error
        self.stream = file.open("a", encoding="utf-8")
        if not lines:
            self._append(identity)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """Yield `(index, completion)`: first those already on disk, then the engine's, each written first."""
        keys = [_key(request, sampling) for request in requests]
        yield from ((i, self.known[key]) for i, key in enumerate(keys) if key in self.known)
        new = [i for i, key in enumerate(keys) if key not in self.known]
        for position, completion in self.engine.generate([requests[i] for i in new], sampling):
            i = new[position]
            self._append({"key": keys[i], **asdict(completion)})
            self.known[keys[i]] = completion
            yield i, completion
        os.fsync(self.stream.fileno())

    def _append(self, line: dict) -> None:
        self.stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        self.stream.flush()


def _drop_half_a_line(file: Path) -> None:
    """Cut off a last line that a kill left half written."""
    content = file.read_bytes() if file.exists() else b""
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        print(f"{file}: dropped a half-written last line")
        os.truncate(file, whole)


def _key(request: Request, sampling: Sampling) -> str:
    return hashlib.sha256(json.dumps([request.prompt, request.sample, asdict(sampling)]).encode()).hexdigest()[:24]
