"""A journal of completions, on disk before they are used: a killed search or evaluation resumes where it stopped."""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from msgspec import Meta

from tale.errors import UserError
from tale.inference.costs import Cost
from tale.inference.requests import Completion, CompletionStream, Engine, Request, RequestSource, request_source
from tale.inference.stopping import stopped_answer
from tale.storage.files import AppendOnlyJsonl
from tale.storage.strict_json import Seconds, iter_lines, parse

if TYPE_CHECKING:
    from tale.data.chat import Chat  # it imports transformers, which takes seconds

# Each completion is written at once, which survives a killed process, and synced after this time, for a power cut.
SYNC_SECONDS = 0.2
Key = Annotated[str, Meta(pattern="^[0-9a-f]{24}$")]
# What the first and the other lines are, and the remedy for a damaged one.
SETTINGS = ("the settings of a journal", "delete the file, or use another output folder")
ANSWER = ("a journalled answer", "delete the line")


class JournaledEngine:
    """`engine` with a journal: every completion is appended to `file`, which answers the same request later.

    A completion's key is a hash of its request. The journal's first line has the `settings`: all else that an answer
    depends on (model, adapter, engine, tokenizer). Memory holds each completion's offset in the file, not the
    completion. Failed requests (finish "error") are not written: the same command sends them again. Opening changes
    nothing in the file.

    A completion also answers a request that differs in `max_tokens` only: unchanged if it ended within that limit, or
    cut to it, with the engine's tokenizer `chat`. `cost` is that of all completions in the journal, and `first_uses` of
    those that were asked for since it was opened, each once: the same figures whether a run was killed and resumed or
    not. Completions that answer again are counted in `repeated` if the request is the same, in `reused` if its limit is
    another; they take no time.

    Raises:
        UserError: on opening, if the journal was written with other settings or a line is damaged; in use, if the disk
            is full.
    """

    def __init__(self, engine: Engine, file: Path, settings: dict[str, Any], chat: Chat | None = None):
        self.engine, self.tokenizer, self.chat = engine, engine.tokenizer, chat
        self.cost, self.first_uses, self.repeated, self.reused = Cost(), Cost(), Cost(), Cost()
        self.used: set[int] = set()  # places in the file
        self.offsets: dict[bytes, int] = {}
        self.longest: dict[bytes, _Place] = {}  # by the key without limit
        self.settings, self.file = settings, AppendOnlyJsonl(file)
        for number, (place, line) in enumerate(self.file, 1):
            where = f"{file}:{number}"
            if number == 1:
                _check(file, parse(line, dict[str, Any], where, *SETTINGS), settings)
                continue
            entry = parse(line, JournalEntry, where, *ANSWER)
            self.cost.add(entry.completion, entry.seconds)
            self.offsets[bytes.fromhex(entry.key)] = place
            if entry.key_without_limit:
                self._index(bytes.fromhex(entry.key_without_limit), entry.completion, place)

    def generate(self, more: RequestSource) -> CompletionStream:
        """Yield `(number, completion)` from the journal, or from the engine, after it is written to the journal."""
        asked: list[tuple[int, Request]] = []  # by the engine's numbers
        found: deque[tuple[int, Callable[[], Completion]]] = deque()
        numbers = count()

        def unknown() -> list[Request]:
            new = []
            for request in more():
                if read := self._known(request):
                    found.append((next(numbers), read))
                else:
                    asked.append((next(numbers), request))
                    new.append(request)
            return new

        def known() -> Iterator[tuple[int, Completion]]:
            while found:
                i, read = found.popleft()
                yield i, read()

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

    def _kept(self, answers: CompletionStream, asked: Sequence[tuple[int, Request]]) -> CompletionStream:
        """The engine's completions, each written before it is yielded."""
        before = synced = time.monotonic()
        for position, completion in answers:
            now = time.monotonic()
            i, request = asked[position]
            if completion.finish != "error":
                self._write(request, completion, now - before)
            if now - synced > SYNC_SECONDS:
                self.file.sync()
                synced = now
            yield i, completion
            before = time.monotonic()
        self.file.sync()

    def close(self) -> None:
        """Close the journal."""
        self.file.close()

    def _write(self, request: Request, completion: Completion, seconds: float) -> None:
        if not self.file.size:
            self.file.append(self.settings)
        key, unlimited = request_key(request), key_without_limit(request)
        filled = {name: value for name, value in asdict(completion).items() if value is not None}
        seconds = round(seconds, 4)
        line = {"key": key.hex(), "key_without_limit": unlimited.hex(), "seconds": seconds, **filled}
        self.offsets[key] = place = self.file.append(line)
        self._index(unlimited, completion, place)
        self.used.add(place)
        self.cost.add(completion, seconds)
        self.first_uses.add(completion, seconds)

    def _index(self, unlimited: bytes, completion: Completion, place: int) -> None:
        """Remember the completion for other limits, unless a longer one is known."""
        new = _Place(completion.finish == "stop", completion.tokens, place, completion.ids is not None)
        if new.ended or (new.has_ids and completion.finish == "length"):
            self.longest[unlimited] = max(new, self.longest.get(unlimited, new))

    def _known(self, request: Request) -> Callable[[], Completion] | None:
        """A reader of this request's completion, made from one with another limit if need be; None without either."""
        if (place := self.offsets.get(request_key(request))) is not None:
            return partial(self._read, place, request, self.repeated)
        longest, limit = self.longest.get(key_without_limit(request)), request.sampling.max_tokens
        if longest and (longest.ended if longest.tokens <= limit else longest.has_ids and self.chat):
            return partial(self._read, longest.place, request, self.reused)
        return None

    def _read(self, place: int, request: Request, cost: Cost) -> Completion:
        entry = parse(self.file.read(place), JournalEntry, f"{self.file.path}, byte {place}", *ANSWER)
        completion = entry.completion
        if self.chat and completion.ids and completion.tokens > request.sampling.max_tokens:
            completion = _cut(completion, request, self.chat)
        if place in self.used:
            cost.add(completion, 0.0)
        else:
            self.used.add(place)
            self.first_uses.add(completion, entry.seconds)
        return completion


class _Place(NamedTuple):
    """Where a completion is in the file; the greater of two, one that ended or else the longer, answers more limits."""

    ended: bool
    tokens: int
    place: int
    has_ids: bool


def _cut(completion: Completion, request: Request, chat: Chat) -> Completion:
    """A completion that is longer than the request's limit, as the engine would have given it: cut to the limit.

    No end token and no stop string precedes the last of its ids, so there is none within the limit.
    """
    assert completion.ids
    answer = stopped_answer(request, completion.ids, chat, ())
    assert answer
    count = len(answer.ids)
    logprobs = completion.logprobs[:count] if completion.logprobs else None
    return replace(completion, **vars(answer), tokens=count, logprobs=logprobs)


@dataclass(frozen=True, kw_only=True)
class JournalEntry(Completion):
    """A line of the journal: a completion, its request's keys (earlier versions wrote one), and the seconds it took."""

    key: Key
    seconds: Seconds
    key_without_limit: Key | None = None

    def __post_init__(self) -> None:
        scored = self.ids if self.logprobs is None else self.logprobs
        if self.ids is not None and not len(self.ids) == len(scored or ()) == self.tokens:
            raise ValueError("an answer has as many ids and log-probabilities as tokens")

    @property
    def completion(self) -> Completion:
        """The completion without key and seconds."""
        return Completion(**{field.name: getattr(self, field.name) for field in fields(Completion)})


Answered = tuple[Completion, float]


@dataclass(frozen=True)
class Journal:
    """The content of a journal: its settings, and by key each completion with the seconds that it took.

    `ended`: those that ended by themselves, by their key without limit.
    """

    settings: dict[str, Any]
    answers: dict[bytes, Answered]
    ended: dict[bytes, Answered]

    def answer_to(self, request: Request, missing: Answered | None = None) -> Answered | None:
        """The request's completion, or one under another limit that ended by itself; else `missing`."""
        return self.answers.get(request_key(request)) or self.ended.get(key_without_limit(request)) or missing


def read_journal(file: Path) -> Journal:
    """Read a journal, also while its run is writing it or after it was killed.

    Raises:
        UserError: it cannot be read, or a line is damaged; file and line are named.
    """
    journal = Journal({}, {}, {})
    for number, (where, line) in enumerate(iter_lines(file, ANSWER[1], growing=True)):
        if number == 0:
            journal.settings.update(parse(line, dict[str, Any], where, *SETTINGS))
        else:
            entry = parse(line, JournalEntry, where, *ANSWER)
            answered = entry.completion, entry.seconds
            journal.answers[bytes.fromhex(entry.key)] = answered
            if entry.key_without_limit and entry.finish == "stop":
                journal.ended[bytes.fromhex(entry.key_without_limit)] = answered
    return journal


def request_key(request: Request) -> bytes:
    """The key of a request's completion: a hash of all its fields that change it."""
    return _hash(request, asdict(request.sampling))


def key_without_limit(request: Request) -> bytes:
    """The same hash without `max_tokens`: equal for requests whose answers differ in where they are cut off."""
    return _hash(request, {name: of for name, of in asdict(request.sampling).items() if name != "max_tokens"})


def _hash(request: Request, sampling: dict[str, Any]) -> bytes:
    known: list[Any] = [request.prompt, request.sample, sampling]
    if request != Request.user(request.prompt, request.sampling, request.sample):
        messages = [{name: value for name, value in vars(m).items() if value is not None} for m in request.messages]
        known += [messages, request.stop, request.logprobs, *(["processed"] if request.processed_logprobs else [])]
    return hashlib.sha256(json.dumps(known).encode()).digest()[:12]


def _check(file: Path, found: dict[str, Any], settings: dict[str, Any]) -> None:
    found = {"tokenizer_hash": settings.get("tokenizer_hash")} | found  # missing in older journals
    other = [name for name in {**found, **settings} if found.get(name) != settings.get(name)]
    if other:
        was, now = ({name: of.get(name) for name in other} for of in (found, settings))
        raise UserError(f"{file}: written with {was}, this run has {now}; use another output folder")
