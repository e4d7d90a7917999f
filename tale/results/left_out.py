"""The section of what was left out, and why: one table for all runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from tale.evaluation.replies import count_seeds
from tale.grading import UNMARKED
from tale.output.formats import whole
from tale.output.tables import Column, table_of
from tale.results.blocks import Section, Text
from tale.results.runs import EvaluationRun, Run, SearchRun, ServeRun, TrainRun

OTHERS = ("brackets", "reasoning", "none")
COLUMNS = {"run": Column("run"), "what": Column("what"), "count": Column("how many", whole)}

ALONE = "answers in the reasoning alone, counted as wrong"


def left_out_section(runs: Sequence[Run]) -> Section:
    """Questions without a target, records not trained on, answers cut off or not asked as meant, duplicates."""
    left = [(run.name, *found) for run in runs for found in _left_out(run) if found[1]]
    title = "What was left out, and why"
    if not left:
        return Section("left-out", title, [Text("Nothing.")])
    rows = [dict(zip(COLUMNS, found, strict=True)) for found in left]
    return Section("left-out", title, [table_of("left-out", "By run", COLUMNS, rows)])


def _left_out(run: Run) -> Iterator[tuple[str, int]]:
    yield "duplicate questions, dropped", run.identity.get("questions", {}).get("duplicates", 0)
    if isinstance(run, SearchRun):
        records = run.records or []
        yield from _counted("questions without a target: {}", (r.reason for r in records if not r.target))
        yield from _not_answered("", [r.error for r in records if r.error])
        answers = [a for r in records for attempt in (r.vanilla, *r.attempts) for a in attempt.answers]
        yield ALONE, sum(a.via == "reasoning" for a in answers)
        cut = [a for r in records for a in r.attempts for answer in a.answers if answer.finish not in ("stop", "error")]
        yield "answers under a budget that were cut off, counted as wrong", sum(not attempt.limit for attempt in cut)
        yield "answers cut off where they could no longer be cheaper", sum(bool(attempt.limit) for attempt in cut)
    if isinstance(run, TrainRun):
        for reason, count in run.identity.get("examples", {}).get("left_out", {}).items():
            yield f"records not trained on: {reason}", count
    if isinstance(run, EvaluationRun):
        for label, replies in (run.replies or {}).items():
            method = f"{label}, {seeds} seeds" if (seeds := count_seeds(replies)) > 1 else label
            yield from _counted(f"{method}: asked as vanilla CoT, {{}}", (r.fallback for r in replies if r.fallback))
            yield from _not_answered(f"{method}: ", [r.error for r in replies if r.error])
            yield f"{method}: cut off", sum(r.finish not in ("stop", "error") for r in replies)
            ways = (UNMARKED.get(r.via, f"an earlier version's {r.via}") for r in replies if r.via not in OTHERS)
            yield from _counted(f"{method}: read by {{}}, without [[ ]]", ways)
            yield f"{method}: {ALONE}", sum(r.via == "reasoning" for r in replies)
            yield f"{method}: no answer to be read", sum(r.value is None for r in replies)
    if isinstance(run, ServeRun):
        chats = [row for row in run.requests if row.route == "chat/completions"]
        yield from _counted(
            "requests that passed unchanged: {}", (r.reason for r in chats if r.reason and r.status == 200)
        )
        yield from _counted("requests without a whole answer: {}", (r.outcome for r in chats if r.outcome != "done"))
        yield "answers without usage, whose tokens are their stream's events", sum(r.counted == "events" for r in chats)


def _not_answered(method: str, errors: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Only the first error is shown, as a server's messages may all differ."""
    if errors:
        yield f"{method}not answered, counted as wrong; the first: {errors[0]}", len(errors)


def _counted(what: str, reasons: Iterator[str | None]) -> Iterator[tuple[str, int]]:
    for reason, count in Counter(map(str, reasons)).most_common():
        yield what.format(reason), count
