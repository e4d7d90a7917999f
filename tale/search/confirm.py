"""Confirming targets by sampling their prompts again: an answer that is right by luck is bad training data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from tale.data import prompts
from tale.data.records import Confirmation, Record
from tale.inference import Engine, Request, Sampling, complete
from tale.output.formats import percent, whole
from tale.output.tables import Column
from tale.search.solver import graded_answer
from tale.statistics import mean_share, wilson


def confirm_targets(
    records: Iterable[Record], engine: Engine, sampling: Sampling, times: int, first: int = 0
) -> Iterator[Record]:
    """The records, after sampling every target's prompt `times` times; `first` is the number of the first sample.

    All records are held in memory. Failed answers are not counted.
    """
    records = list(records)
    asked = [
        Request.user(prompts.chain_of_thought(record.question, record.budget, record.budget_line), sampling, first + i)
        for record in records
        if record.target
        for i in range(times)
    ]
    completions = iter(complete(engine, asked, "confirm"))
    for record in records:
        if record.target:
            answers = [graded_answer(next(completions), record.question) for _ in range(times)]
            whole = [a for a in answers if a.finish != "error"]
            again = Confirmation(sum(a.usable for a in whole), len(whole), sampling.temperature) if whole else None
            record = replace(record, again=again)
        yield record


@dataclass(frozen=True)
class ConfirmationSummary:
    """The confirmed targets of one kind: how many were lucky, and the mean share of right answers, with intervals."""

    kind: Annotated[str, Column("question")]
    targets: Annotated[int, Column("targets", whole)]
    lucky: Annotated[int, Column("lucky", whole)]
    lucky_share: Annotated[float, Column("lucky, %", percent)]
    lucky_share_low: float
    lucky_share_high: float
    right: Annotated[float, Column("right when asked again, %", percent)]
    right_low: float
    right_high: float


def summarise_confirmations(asked: Sequence[tuple[bool, Confirmation]]) -> list[ConfirmationSummary]:
    """Rows for targets whose vanilla answer is right, or wrong (the first of each pair), and for all."""
    kinds = {
        "vanilla CoT right": [again for wrong, again in asked if not wrong],
        "vanilla CoT wrong": [again for wrong, again in asked if wrong],
        "all": [again for _, again in asked],
    }
    return [_luck(kind, of) for kind, of in kinds.items() if of]


def _luck(kind: str, asked: Sequence[Confirmation]) -> ConfirmationSummary:
    lucky = sum(again.lucky for again in asked)
    shares = mean_share([again.share for again in asked])
    return ConfirmationSummary(kind, len(asked), lucky, lucky / len(asked), *wilson(lucky, len(asked)), *shares)
