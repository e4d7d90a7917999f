"""The section of a search: targets, savings (Fig 3), budgets, and elasticity for a grid search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from tale.analysis.elasticity import budget_levels, vanilla_correct
from tale.data.records import Record
from tale.errors import UserError
from tale.output.formats import percent, whole
from tale.output.tables import Column, Table, columns_of, table_of
from tale.results.blocks import Block, Figure, Section, Text
from tale.results.elasticity import elasticity_figure, elasticity_tables
from tale.results.figures import COLOURS, figure
from tale.results.runs import SearchRun
from tale.search.confirm import ConfirmationSummary, summarise_confirmations

OUTCOMES = {"outcome": Column("outcome"), "questions": Column("questions", whole), "share": Column("%", percent)}
AFTER_WRONG = ", vanilla CoT wrong"


def search_section(run: SearchRun) -> Section:
    """The section of one search."""
    anchor, title = f"search-{run.slug}", f"Search: {run.name}"
    about = Text(f"{run.model} on {run.recipe.task.name}, strategy {run.recipe.strategy}.")
    records = run.records
    if records is None:
        done = sum(len(journal.answers) for journal in run.journals)
        advice = f"; {done:,} answers are in its journal, from which its command resumes" if done else ""
        return Section(anchor, title, [about, _missing(f"records.jsonl is missing, the run was not finished{advice}.")])
    if not records:
        return Section(anchor, title, [about, _missing("records.jsonl is empty.")])
    found = [record for record in records if record.target]
    blocks: list[Block] = [about, _summary(run, records, found)]
    if rows := summarise_confirmations([(record.vanilla_wrong, record.again) for record in found if record.again]):
        blocks.append(_luck(run, rows))
    if found:
        blocks += [_tokens(run, found), _budgets(run, found)]
    if run.recipe.strategy == "grid" and (searched := vanilla_correct(records)):
        blocks += _elasticity(run, searched)
    return Section(anchor, title, blocks)


def _missing(text: str) -> Text:
    return Text(f"No results: {text}", warning=True)


def _summary(run: SearchRun, records: Sequence[Record], found: Sequence[Record]) -> Table:
    kinds = {f"with a target{AFTER_WRONG}": [r for r in found if r.vanilla_wrong]}
    kinds = {"with a target": [r for r in found if not r.vanilla_wrong]} | {k: of for k, of in kinds.items() if of}
    counts = {kind: len(of) for kind, of in kinds.items()}
    reasons = Counter(str(record.reason) for record in records if not record.target)
    counts |= {f"without: {reason}": count for reason, count in reasons.most_common()}
    rows = [{"outcome": o, "questions": count, "share": count / len(records)} for o, count in counts.items()]
    attempts = [attempt for record in records for attempt in record.attempts]
    caption = f"{len(records)} questions, {len(attempts)} budgets tried."
    if found:
        before, after = _means(found)
        caption += f" With a target: vanilla {before:,.1f} tokens, target {after:,.1f}, {1 - after / before:.1%} saved."
    return table_of(f"search-{run.slug}", caption, OUTCOMES, rows)


def _luck(run: SearchRun, rows: Sequence[ConfirmationSummary]) -> Table:
    how = f"{run.recipe.confirm_samples} times at temperature {run.recipe.confirm_temperature:g}"
    caption = f"Targets asked again {how}; lucky: right in fewer than half of the answers; in brackets 95 % intervals"
    return table_of(f"lucky-{run.slug}", caption, columns_of(ConfirmationSummary), rows)


def _means(found: Sequence[Record]) -> tuple[float, float]:
    vanilla, target = zip(*((r.vanilla.best.tokens, r.target.tokens) for r in found if r.target), strict=True)
    return float(numpy.mean(vanilla)), float(numpy.mean(target))


def _tokens(run: SearchRun, found: Sequence[Record]) -> Figure:
    before, after = _means(found)

    def drawn(canvas: Canvas) -> None:
        axes = canvas.subplots()
        for wrong, colour in ((False, COLOURS[0]), (True, COLOURS[1])):
            of = [(r.vanilla.best.tokens, r.target.tokens) for r in found if r.target and r.vanilla_wrong is wrong]
            label = "vanilla CoT wrong" if wrong else "vanilla CoT right"
            if of:
                vanilla, searched = zip(*of, strict=True)
                axes.scatter(vanilla, searched, s=14, alpha=0.5, color=colour, linewidths=0, label=label)
        most = max(r.vanilla.best.tokens for r in found)
        axes.plot([0, most], [0, most], "--", lw=1, color="gray")
        if any(r.vanilla_wrong for r in found):
            axes.legend(frameon=False)
        axes.set(xlabel="tokens of the vanilla answer", ylabel="tokens under β*", xlim=(0, None), ylim=(0, None))
        axes.grid(alpha=0.3)

    caption = "Tokens with vanilla CoT and under the searched budget, a point a question (Fig 3). Dashed: no saving."
    alt = f"{caption} {len(found)} questions, mean {before:,.1f} against {after:,.1f} tokens."
    return figure(f"search-tokens-{run.slug}", caption, alt, drawn)


def _budgets(run: SearchRun, found: Sequence[Record]) -> Figure:
    budgets = [record.budget for record in found if record.budget]
    edges = [2**i for i in range(max(budgets).bit_length() + 1)]
    counts, _ = numpy.histogram(budgets, edges)
    names = [f"{low}–{high - 1}" if high - low > 1 else f"{low}" for low, high in pairwise(edges)]

    def drawn(canvas: Canvas) -> None:
        axes = canvas.subplots()
        axes.bar(names, counts, color=COLOURS[0])
        axes.set(xlabel="searched budget β*, tokens", ylabel="questions")
        axes.tick_params("x", rotation=30)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))

    median = f"median {numpy.median(budgets):g}, from {min(budgets)} to {max(budgets)}"
    alt = f"Histogram of β* over {len(budgets)} questions: {median}."
    return figure(f"search-budgets-{run.slug}", "The searched budgets, by powers of two.", alt, drawn)


def _elasticity(run: SearchRun, searched: Sequence[Record]) -> list[Block]:
    """Tables and figure in the form of Table 8, computed as in an analysis."""
    try:
        curve = budget_levels(run.name, searched, run.recipe.budget_fractions)
    except UserError as error:
        return [_missing(f"{error}.")]
    return [*elasticity_tables(run.slug, curve), elasticity_figure(run.slug, curve)]
