"""The records that a search writes and training reads: one line of JSON per question."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from tale.data.question import Question
from tale.storage.files import write_jsonl_atomic
from tale.storage.folder import check_output
from tale.storage.strict_json import Count, PositiveInt, read_jsonl

FinishReason = Literal["stop", "length", "content_filter", "error"]


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters. Temperature 0 is greedy decoding, for which the seed has no effect."""

    max_tokens: PositiveInt
    temperature: Annotated[float, Meta(ge=0)] = 0.0
    seed: int = 1024


@dataclass(frozen=True)
class Answer:
    """A graded completion. `via` says how its value was found, as in `tale.grading.reading`, or that all is reasoning.

    With finish "error" there is no answer, and `error` says why. `ids` are the generated ids, the end-of-sequence id
    included; None from an endpoint, and in older records.
    """

    text: str
    tokens: Count
    finish: FinishReason
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
        """Whether it is right and not cut off: only then can it be feasible or a target."""
        return self.correct and self.finish == "stop"


@dataclass(frozen=True)
class Attempt:
    """The answers sampled under one budget (None: vanilla), and whether the budget is feasible.

    `limit`: their `max_tokens`, if lower than the sampling's because no longer answer would be feasible.
    """

    budget: PositiveInt | None
    answers: Annotated[tuple[Answer, ...], Meta(min_length=1)]
    feasible: bool
    limit: PositiveInt | None = None

    @property
    def best(self) -> Answer:
        """The shortest usable answer, else the first answer."""
        return min((a for a in self.answers if a.usable), key=lambda a: a.tokens, default=self.answers[0])

    @property
    def error(self) -> str | None:
        """The first error among the answers, if any."""
        return next((a.error for a in self.answers if a.finish == "error"), None)


@dataclass(frozen=True)
class Confirmation:
    """A target's prompt sampled again at a temperature: how many answers there are, and how many are usable."""

    right: Count
    answered: PositiveInt
    temperature: Annotated[float, Meta(gt=0)]

    def __post_init__(self) -> None:
        if self.right > self.answered:
            raise ValueError("more answers are right than there are")

    @property
    def share(self) -> float:
        """The share of right answers."""
        return self.right / self.answered

    @property
    def lucky(self) -> bool:
        """Whether fewer than half of the answers are right: the target is right by luck."""
        return self.share < 0.5


@dataclass(frozen=True)
class Record:
    """A searched question. `budget` is β* and `target` the answer under it; without a target, `reason` says why.

    `sampling` holds for all answers, `tokenizer` counts their tokens, `budget_line` asks for a budget (None: the
    paper's). `tokenizer_hash` is the `Chat.fingerprint` of the answers' ids. `vanilla_wrong`: budgets were searched
    although the vanilla answer does not count as right (`search_wrong`). `again`: the target's confirmation
    (`confirm_samples`).
    """

    question: Question
    vanilla: Attempt
    attempts: tuple[Attempt, ...]
    budget: PositiveInt | None
    target: Answer | None
    reason: str | None
    sampling: Sampling
    tokenizer: str
    budget_line: str | None = None  # older records have no such key; theirs is the paper's
    tokenizer_hash: str | None = None
    vanilla_wrong: bool = False
    again: Confirmation | None = None

    def __post_init__(self) -> None:
        if (self.target is None) == (self.reason is None):
            raise ValueError("a record has either a target or a reason")
        if self.target and self.budget is None:
            raise ValueError("a target has a budget")

    @property
    def error(self) -> str | None:
        """The first error among its answers, which ended the search, if any."""
        return next((attempt.error for attempt in (self.vanilla, *self.attempts) if attempt.error), None)


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write all records, atomically."""
    write_jsonl_atomic(path, (asdict(record) for record in records))


def iter_records(path: Path) -> Iterator[Record]:
    """Iterate over a search's records.

    Raises:
        UserError: the file is missing or not of the run in its folder, or a line is truncated or not a record; file and
            line are named.
    """
    check_output(path)
    lines = read_jsonl(path, Record, "a search record", "scripts/search.py writes records.jsonl")
    return (record for _, record in lines)


def read_records(path: Path) -> list[Record]:
    """All records of a search; it raises as `iter_records` does."""
    return list(iter_records(path))


def optimal_budgets(records: Iterable[Record]) -> dict[str, int | None]:
    """β* by question hash."""
    return {record.question.question_hash: record.budget for record in records}
