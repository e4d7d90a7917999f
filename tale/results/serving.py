"""The section of a proxy: the saving against its control group, and what was asked, used, cut and refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Annotated

import numpy
from matplotlib.figure import Figure as Canvas

from tale.output.formats import number, percent, whole
from tale.output.tables import Column, columns_of, table_of
from tale.results.blocks import Block, Figure, Section, Text
from tale.results.figures import figure
from tale.results.runs import ServeRun
from tale.serve.log import RequestRow
from tale.statistics import Bounded, bootstrap_rows

NAMES = {"budget": "under a budget", "control": "control group", "stated": "client's budget", "unchanged": "unchanged"}
NOTE = (
    "Tokens are output tokens of whole answers, with the estimator's, and with both calls where one was made again. "
    "First byte: seconds from the request to the answer's first byte."
)
SAVED = (
    "Saved: {share} of the output tokens, 95 % interval {low} to {high} (bootstrap over questions), against the "
    "control group, which passes unchanged: {ours:,.1f} tokens an answer instead of {theirs:,.1f}. Whether answers are "
    "as often right is not seen here."
)


@dataclass(frozen=True)
class Group:
    """The chat completions of one group."""

    group: Annotated[str, Column("group")]
    requests: Annotated[int, Column("requests", whole)]
    answers: Annotated[int, Column("whole answers", whole)]
    questions: Annotated[int, Column("questions", whole)]
    tokens: Annotated[float | None, Column("tokens an answer", number)]
    middle: Annotated[float | None, Column("median", number)]
    asked: Annotated[float | None, Column("budget asked", number)]
    fired: Annotated[float, Column("cut by the limit, %", percent)]
    retried: Annotated[int, Column("asked again", whole)]
    first_byte: Annotated[float | None, Column("first byte, median", "{:,.3f} s".format)]


def serving_section(run: ServeRun) -> Section:
    """The section of one proxy's log."""
    rows = [row for row in run.requests if row.route == "chat/completions"]
    anchor, title = f"serve-{run.slug}", f"Serving: {run.name}"
    if not rows:
        return Section(anchor, title, [Text("No chat completions in its log so far.", warning=True)])
    groups = [_group(name, [row for row in rows if row.arm == arm]) for arm, name in NAMES.items()]
    table = table_of(f"{anchor}-groups", "Requests by group", columns_of(Group), [g for g in groups if g.requests])
    blocks: list[Block] = [_saved(rows), table, Text(NOTE)]
    by_arm = {name: _spent(rows, arm) for arm, name in NAMES.items() if arm in ("budget", "control")}
    return Section(anchor, title, [*blocks, *([_drawn(anchor, by_arm)] if all(by_arm.values()) else [])])


def saving(rows: Iterable[RequestRow]) -> Bounded:
    """1 − tokens an answer under a budget / of the control group, with its interval; questions are drawn whole."""
    sums: dict[str | None, list[float]] = {}
    for row in rows:
        if row.counts and row.arm in ("budget", "control"):
            first = 0 if row.arm == "budget" else 2
            of = sums.setdefault(row.key, [0.0] * 4)
            of[first] += row.spent
            of[first + 1] += 1

    def share(means: numpy.ndarray) -> numpy.ndarray:
        with numpy.errstate(divide="ignore", invalid="ignore"):
            ours, theirs = means[..., 0] / means[..., 1], means[..., 2] / means[..., 3]
            return numpy.where((means[..., 1] > 0) & (means[..., 2] > 0), 1 - ours / theirs, numpy.nan)

    return bootstrap_rows(numpy.array([*sums.values()]), share) if sums else (None, None, None)


def _saved(rows: Sequence[RequestRow]) -> Text:
    share, low, high = saving(rows)
    if share is None or low is None or high is None:
        return Text("No saving is computed: the budget or the control group has no complete answer yet.", warning=True)
    ours, theirs = (mean(_spent(rows, arm)) for arm in ("budget", "control"))
    shown = {name: f"{100 * value:.1f} %" for name, value in (("share", share), ("low", low), ("high", high))}
    return Text(SAVED.format(**shown, ours=ours, theirs=theirs))


def _spent(rows: Iterable[RequestRow], arm: str) -> list[int]:
    return [row.spent for row in rows if row.counts and row.arm == arm]


def _group(name: str, rows: Sequence[RequestRow]) -> Group:
    whole_ones = [row for row in rows if row.counts]
    spent = [row.spent for row in whole_ones]
    asked = [row.asked for row in rows if row.asked]
    times = [row.first_byte for row in rows if row.first_byte is not None and row.outcome == "done"]
    return Group(
        name,
        len(rows),
        len(whole_ones),
        len({row.key for row in rows}),
        mean(spent) if spent else None,
        median(spent) if spent else None,
        mean(asked) if asked else None,
        sum(row.limit_fired for row in rows) / max(1, len(rows)),
        sum(row.retried for row in rows),
        median(times) if times else None,
    )


def _drawn(anchor: str, by_arm: dict[str, list[int]]) -> Figure:
    """The share of answers with at most so many tokens, a curve a group."""

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        for name, spent in by_arm.items():
            axes.ecdf(spent, label=name)
        axes.set_xlabel("output tokens")
        axes.set_ylabel("share of answers")
        axes.legend(frameon=False)

    caption = "Share of answers with at most so many output tokens."
    medians = ", ".join(f"{name} {median(spent):g}" for name, spent in by_arm.items())
    return figure(f"{anchor}-tokens", caption, f"{caption} Medians: {medians}.", draw)
