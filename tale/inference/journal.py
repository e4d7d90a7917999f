"""Completions on disk before they are used: a killed search or evaluation resumes where it stopped."""

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
from tale.inference.requests import Answers, Completion, Engine, More, Request, once
from tale.storage.files import AppendedJsonl
from tale.storage.strict_json import Seconds, each_line, parse

# Completions are written one by one, which outlives the process, and synced together, which outlives the machine.
SECONDS = 0.2
# What its lines are, and what to do about one that is not.
SETTINGS = ("the settings of a journal", "delete the file, or use another output folder")
ANSWER = ("a journalled answer", "delete the line")


class JournaledEngine:
    """`engine`, with every completion appended to `file`, and answered from there when it is asked again.

    A completion is known by its request. The journal's first line holds `settings`: all else that
    an answer depends on (the model, the adapter if any, the engine, what counts its tokens). Memory holds where each
    completion stands in the file, not the completion. What could not be answered (finish "error") is not written: the
    same command asks again. Opening it changes nothing in the file.

    Raises:
        UserError: on opening, when the journal was written under other settings or a line is damaged; in use, when the
            disk is full.
    """

    def __init__(self, engine: Engine, file: Path, settings: dict[str, Any]):
        self.engine, self.tokenizer = engine, engine.tokenizer
        self.cost = Cost()
        self.places: dict[bytes, int] = {}
        self.settings, self.file = settings, AppendedJsonl(file)
        for number, (place, line) in enumerate(self.file, 1):
            where = f"{file}:{number}"
            if number == 1:
                _check(file, parse(line, dict[str, Any], where, *SETTINGS), settings)
                continue
            entry = parse(line, Entry, where, *ANSWER)
            self.cost.add(entry.completion, entry.seconds)
            self.places[bytes.fromhex(entry.key)] = place

    def generate(self, more: More) -> Answers:
        """Yield `(number, completion)`: what is on disk from there, all else from the engine, on disk before."""
        asked: list[tuple[int, bytes]] = []  # by the engine's own count
        found: deque[tuple[int, bytes]] = deque()
        numbers = count()

        def unknown() -> list[Request]:
            requests = more()
            keys = [(i, key_of(request)) for request, i in zip(requests, numbers, strict=False)]
            found.extend((i, key) for i, key in keys if key in self.places)
            asked.extend((i, key) for i, key in keys if key not in self.places)
            return [request for request, (_, key) in zip(requests, keys, strict=True) if key not in self.places]

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
            with closing(self.engine.generate(once(first, unknown))) as answers:
                for answer in self._kept(answers, asked):
                    yield answer
                    yield from known()
            asked.clear()

    def _kept(self, answers: Answers, asked: Sequence[tuple[int, bytes]]) -> Iterator[tuple[int, Completion]]:
        """The engine's answers, each of them written before it is given on."""
        before = synced = time.monotonic()
        for position, completion in answers:
            now = time.monotonic()
            i, key = asked[position]
            if completion.finish != "error":
                self._write(key, completion, now - before)
            if now - synced > SECONDS:
                self.file.sync()
                synced = now
            yield i, completion
            before = time.monotonic()
        self.file.sync()

    def close(self) -> None:
        """Let go of the journal."""
        self.file.close()

    def _write(self, key: bytes, completion: Completion, seconds: float) -> None:
        if not self.file.size:
            self.file.append(self.settings)
        filled = {name: value for name, value in asdict(completion).items() if value is not None}
        line = {"key": key.hex(), "seconds": round(seconds, 4), **filled}
        self.places[key] = self.file.append(line)
        self.cost.add(completion, seconds)

    def _read(self, key: bytes) -> Completion:
        place = self.places[key]
        return parse(self.file.read(place), Entry, f"{self.file.path}, byte {place}", *ANSWER).completion


@dataclass(frozen=True, kw_only=True)
class Entry(Completion):
    """A journalled answer: a completion, what it is known by, and the seconds that it took."""

    key: Annotated[str, Meta(pattern="^[0-9a-f]{24}$")]
    seconds: Seconds

    @property
    def completion(self) -> Completion:
        """The completion alone."""
        return Completion(**{field.name: getattr(self, field.name) for field in fields(Completion)})


@dataclass(frozen=True)
class Journal:
    """What a journal holds: its settings, and each completion with the seconds that it took, by its key."""

    settings: dict[str, Any]
    answers: dict[bytes, tuple[Completion, float]]


def read_journal(file: Path) -> Journal:
    """A journal as it is, also while its run goes on or after a kill.

    Raises:
        UserError: it cannot be read, or a line is damaged; file and line are named.
    """
    journal = Journal({}, {})
    for number, (where, line) in enumerate(each_line(file, ANSWER[1], growing=True)):
        if number == 0:
            journal.settings.update(parse(line, dict[str, Any], where, *SETTINGS))
        else:
            entry = parse(line, Entry, where, *ANSWER)
            journal.answers[bytes.fromhex(entry.key)] = entry.completion, entry.seconds
    return journal


def key_of(request: Request) -> bytes:
    """What a completion is known by: all that a request says."""
    known: list[Any] = [request.prompt, request.sample, asdict(request.sampling)]
    if request != Request.user(request.prompt, request.sampling, request.sample):
        known += [list(map(vars, request.messages)), request.stop, request.logprobs]
    return hashlib.sha256(json.dumps(known).encode()).digest()[:12]


def _check(file: Path, found: dict[str, Any], settings: dict[str, Any]) -> None:
    found = {"tokenizer_hash": settings.get("tokenizer_hash")} | found  # older journals do not say
    other = [name for name in {**found, **settings} if found.get(name) != settings.get(name)]
    if other:
        was, now = ({name: of.get(name) for name in other} for of in (found, settings))
        raise UserError(f"{file}: written with {was}, this run has {now}; use another output folder")
