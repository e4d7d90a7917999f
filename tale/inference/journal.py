"""A journal of completions, on disk before they are used: a killed search or evaluation resumes where it stopped."""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from itertools import count
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from tale.errors import UserError
from tale.inference.costs import Cost
from tale.inference.requests import Completion, CompletionStream, Engine, Request, RequestSource, request_source
from tale.storage.files import AppendOnlyJsonl
from tale.storage.strict_json import Seconds, iter_lines, parse

# Each completion is written at once, which survives a killed process, and synced after this time, for a power cut.
SYNC_SECONDS = 0.2
# What the first and the other lines are, and the remedy for a damaged one.
SETTINGS = ("the settings of a journal", "delete the file, or use another output folder")
ANSWER = ("a journalled answer", "delete the line")


class JournaledEngine:
    """`engine` with a journal: every completion is appended to `file`, which answers the same request later.

    A completion's key is a hash of its request. The journal's first line has the `settings`: all else that an answer
    depends on (model, adapter, engine, tokenizer). Memory holds each completion's offset in the file, not the
    completion. Failed requests (finish "error") are not written: the same command sends them again. Opening changes
    nothing in the file.

    Raises:
        UserError: on opening, if the journal was written with other settings or a line is damaged; in use, if the disk
            is full.
    """

    def __init__(self, engine: Engine, file: Path, settings: dict[str, Any]):
        self.engine, self.tokenizer = engine, engine.tokenizer
        self.cost = Cost()
        self.offsets: dict[bytes, int] = {}
        self.settings, self.file = settings, AppendOnlyJsonl(file)
        for number, (place, line) in enumerate(self.file, 1):
            where = f"{file}:{number}"
            if number == 1:
                _check(file, parse(line, dict[str, Any], where, *SETTINGS), settings)
                continue
            entry = parse(line, JournalEntry, where, *ANSWER)
            self.cost.add(entry.completion, entry.seconds)
            self.offsets[bytes.fromhex(entry.key)] = place

    def generate(self, more: RequestSource) -> CompletionStream:
        """Yield `(number, completion)` from the journal, or from the engine, after it is written to the journal."""
        asked: list[tuple[int, bytes]] = []  # by the engine's numbers
        found: deque[tuple[int, bytes]] = deque()
        numbers = count()

        def unknown() -> list[Request]:
            requests = more()
            keys = [(i, request_key(request)) for request, i in zip(requests, numbers, strict=False)]
            found.extend((i, key) for i, key in keys if key in self.offsets)
            asked.extend((i, key) for i, key in keys if key not in self.offsets)
            return [request for request, (_, key) in zip(requests, keys, strict=True) if key not in self.offsets]

        def known() -> Iterator[tuple[int, Completion]]:
            while found:
                i, key = found.popleft()
                yield i, self._read(key)

        while True:
            first = unknown()
            while found:
                yield from known()
                first += unknown()
            if not first:
                return
            with closing(self.engine.generate(request_source(first, unknown))) as answers:
                for answer in self._kept(answers, asked):
                    yield answer
                    yield from known()
            asked.clear()

    def _kept(self, answers: CompletionStream, asked: Sequence[tuple[int, bytes]]) -> Iterator[tuple[int, Completion]]:
        """The engine's completions, each written before it is yielded."""
        before = synced = time.monotonic()
        for position, completion in answers:
            now = time.monotonic()
            i, key = asked[position]
            if completion.finish != "error":
                self._write(key, completion, now - before)
            if now - synced > SYNC_SECONDS:
                self.file.sync()
                synced = now
            yield i, completion
            before = time.monotonic()
        self.file.sync()

    def close(self) -> None:
        """Close the journal."""
        self.file.close()

    def _write(self, key: bytes, completion: Completion, seconds: float) -> None:
        if not self.file.size:
            self.file.append(self.settings)
        filled = {name: value for name, value in asdict(completion).items() if value is not None}
        line = {"key": key.hex(), "seconds": round(seconds, 4), **filled}
        self.offsets[key] = self.file.append(line)
        self.cost.add(completion, seconds)

    def _read(self, key: bytes) -> Completion:
        place = self.offsets[key]
        return parse(self.file.read(place), JournalEntry, f"{self.file.path}, byte {place}", *ANSWER).completion


@dataclass(frozen=True, kw_only=True)
class JournalEntry(Completion):
    """A line of the journal: a completion, its request's key, and the seconds that it took."""

    key: Annotated[str, Meta(pattern="^[0-9a-f]{24}$")]
    seconds: Seconds

    @property
    def completion(self) -> Completion:
        """The completion without key and seconds."""
        return Completion(**{field.name: getattr(self, field.name) for field in fields(Completion)})


@dataclass(frozen=True)
class Journal:
    """The content of a journal: its settings, and by key each completion with the seconds that it took."""

    settings: dict[str, Any]
    answers: dict[bytes, tuple[Completion, float]]


def read_journal(file: Path) -> Journal:
    """Read a journal, also while its run is writing it or after it was killed.

    Raises:
        UserError: it cannot be read, or a line is damaged; file and line are named.
    """
    journal = Journal({}, {})
    for number, (where, line) in enumerate(iter_lines(file, ANSWER[1], growing=True)):
        if number == 0:
            journal.settings.update(parse(line, dict[str, Any], where, *SETTINGS))
        else:
            entry = parse(line, JournalEntry, where, *ANSWER)
            journal.answers[bytes.fromhex(entry.key)] = entry.completion, entry.seconds
    return journal


def request_key(request: Request) -> bytes:
    """The key of a request's completion: a hash of all its fields."""
    known: list[Any] = [request.prompt, request.sample, asdict(request.sampling)]
    if request != Request.user(request.prompt, request.sampling, request.sample):
        messages = [{name: value for name, value in vars(m).items() if value is not None} for m in request.messages]
        known += [messages, request.stop, request.logprobs]
    return hashlib.sha256(json.dumps(known).encode()).digest()[:12]


def _check(file: Path, found: dict[str, Any], settings: dict[str, Any]) -> None:
    found = {"tokenizer_hash": settings.get("tokenizer_hash")} | found  # missing in older journals
    other = [name for name in {**found, **settings} if found.get(name) != settings.get(name)]
    if other:
        was, now = ({name: of.get(name) for name in other} for of in (found, settings))
        raise UserError(f"{file}: written with {was}, this run has {now}; use another output folder")
