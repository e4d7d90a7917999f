"""Targets asked again: an answer that is right by luck is a bad teacher."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from tale.data import prompts
from tale.data.records import Again, Record
from tale.inference import Engine, Request, Sampling, complete
from tale.output.formats import percent, whole
from tale.output.tables import Column
from tale.search.solver import answer
from tale.statistics import mean_share, wilson


def confirmed(
    records: Iterable[Record], engine: Engine, sampling: Sampling, times: int, first: int = 0
) -> Iterator[Record]:
    """The records, every target's own prompt asked `times` times again; `first` numbers the first of these draws.

    All records are held in memory. Answers that could not be had are not counted.
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
            answers = [answer(next(completions), record.question) for _ in range(times)]
            whole = [a for a in answers if a.finish != "error"]
            again = Again(sum(a.usable for a in whole), len(whole), sampling.temperature) if whole else None
            record = replace(record, again=again)
        yield record


@dataclass(frozen=True)
class Luck:
    """Of one kind's targets that were asked again: how many were lucky, and the mean share right, with intervals."""

    kind: Annotated[str, Column("question")]
    targets: Annotated[int, Column("targets", whole)]
    lucky: Annotated[int, Column("lucky", whole)]
    lucky_share: Annotated[float, Column("lucky, %", percent)]
    lucky_share_low: float
    lucky_share_high: float
    right: Annotated[float, Column("right when asked again, %", percent)]
    right_low: float
    right_high: float


def luck(asked: Sequence[tuple[bool, Again]]) -> list[Luck]:
    """A row where vanilla CoT is right, one where it is wrong (the first of each pair), and one of all."""
    kinds = {
        "vanilla CoT right": [again for wrong, again in asked if not wrong],
        "vanilla CoT wrong": [again for wrong, again in asked if wrong],
        "all": [again for _, again in asked],
    }
    return [_luck(kind, of) for kind, of in kinds.items() if of]


def _luck(kind: str, asked: Sequence[Again]) -> Luck:
    lucky = sum(again.lucky for again in asked)
    shares = mean_share([again.share for again in asked])
    return Luck(kind, len(asked), lucky, lucky / len(asked), *wilson(lucky, len(asked)), *shares)
