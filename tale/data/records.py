"""What a search writes and training reads: one line of JSON for each question."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from tale.data.question import Question
from tale.storage.files import write_jsonl_atomic
from tale.storage.folder import check_output
from tale.storage.strict_json import Count, Positive, read_lines

Finish = Literal["stop", "length", "content_filter", "error"]


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn. Temperature 0 is greedy decoding, where the seed plays no part."""

    max_tokens: Positive
    temperature: Annotated[float, Meta(ge=0)] = 0.0
    seed: int = 1024


@dataclass(frozen=True)
class Answer:
    """A graded completion. `via` says what decided its value, a way of `tale.grading.reading`; or that all of it is
    reasoning.

    With finish "error" there was no answer, and `error` says why. `ids` are the generated ids, the end-of-sequence id
    included; None from an endpoint, and in older records.
    """

    text: str
    tokens: Count
    finish: Finish
    correct: bool
    value: str | None
    via: str
    error: str | None = None
    ids: tuple[Count, ...] | None = None

    def __post_init__(self) -> None:
        if self.ids is not None and len(self.ids) != self.tokens:
            raise ValueError("an answer has as many ids as tokens")

    @property
    def usable(self) -> bool:
        """Right, and not cut off: only such an answer can be feasible or a target."""
        return self.correct and self.finish == "stop"


@dataclass(frozen=True)
class Attempt:
    """The answers drawn under one budget (None: vanilla), the best of them (shortest right), and the verdict.

    `limit`: the most tokens that they could have, where that is less than the sampling's, as no longer one is feasible.
    """

    budget: Positive | None
    answers: Annotated[tuple[Answer, ...], Meta(min_length=1)]
    feasible: bool
    limit: Positive | None = None

    @property
    def best(self) -> Answer:
        """The shortest right answer, else the first."""
        return min((a for a in self.answers if a.usable), key=lambda a: a.tokens, default=self.answers[0])

    @property
    def error(self) -> str | None:
        """Why one of the answers could not be had."""
        return next((a.error for a in self.answers if a.finish == "error"), None)


@dataclass(frozen=True)
class Again:
    """A target's own prompt asked again at a temperature: of the answers those that were right and not cut off."""

    right: Count
    answered: Positive
    temperature: Annotated[float, Meta(gt=0)]

    def __post_init__(self) -> None:
        if self.right > self.answered:
            raise ValueError("no more answers are right than there are")

    @property
    def share(self) -> float:
        """Of the answers those that are right."""
        return self.right / self.answered

    @property
    def lucky(self) -> bool:
        """Whether fewer than half of the answers are right: the target was right by luck."""
        return self.share < 0.5


@dataclass(frozen=True)
class Record:
    """A searched question. `budget` is β* and `target` the answer under it; without one, `reason` says why.

    `sampling` is how every answer was drawn, `tokenizer` what counted its tokens, `budget_line` how a budget was asked
    for (None: as in the paper). `tokenizer_hash` is the `Chat.fingerprint` that the answers' ids are of.
    `vanilla_wrong`: budgets were asked although the vanilla answer does not count as right (`search_wrong`).
    `again`: how often the target's prompt was answered right when it was asked again (`confirm`).
    """

    question: Question
    vanilla: Attempt
    attempts: tuple[Attempt, ...]
    budget: Positive | None
    target: Answer | None
    reason: str | None
    sampling: Sampling
    tokenizer: str
    budget_line: str | None = None  # older records have the paper's alone, and do not say so
    tokenizer_hash: str | None = None
    vanilla_wrong: bool = False
    again: Again | None = None

    def __post_init__(self) -> None:
        if (self.target is None) == (self.reason is None):
            raise ValueError("a record has a target, or a reason why not")
        if self.target and self.budget is None:
            raise ValueError("a target has a budget")

    @property
    def error(self) -> str | None:
        """Why its search could not be finished, where an answer could not be had."""
        return next((attempt.error for attempt in (self.vanilla, *self.attempts) if attempt.error), None)


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write all records, or nothing."""
    write_jsonl_atomic(path, (asdict(record) for record in records))


def each_record(path: Path) -> Iterator[Record]:
    """Read a search's records one after the other.

    Raises:
        UserError: the file is missing or not of the run beside it, or a line is truncated or no record; file and line
            are named.
    """
    check_output(path)
    lines = read_lines(path, Record, "a search record", "scripts/search.py writes records.jsonl")
    return (record for _, record in lines)


def read_records(path: Path) -> list[Record]:
    """All records of a search at once; it raises as `each_record` does."""
    return list(each_record(path))


def searched_budgets(records: Iterable[Record]) -> dict[str, int | None]:
    """β* by question hash."""
    return {record.question.question_hash: record.budget for record in records}
