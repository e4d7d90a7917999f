"""An evaluation's section: table, accuracy against tokens, histograms, examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from tale.errors import not_none
from tale.evaluation.plot import draw, pareto_front
from tale.evaluation.replies import Reply
from tale.evaluation.run import baseline_of
from tale.evaluation.summary import RESULTS, Row, metric_name, summarise, tables, tokens_of
from tale.output.figures import legend, literal
from tale.output.formats import number, rounded, two_digits
from tale.output.tables import Column, Interval, Table, table_of
from tale.results.blocks import Block, Figure, Points, Section, Text
from tale.results.examples import examples
from tale.results.figures import COLOURS, figure
from tale.results.ledger import queries
from tale.results.runs import EvaluationRun
from tale.results.strategies import strategies_section
from tale.statistics import bootstrap_mean

SECONDS = Column("engine's seconds a question", rounded)


def evaluation_section(
    run: EvaluationRun, rows: Sequence[Row], how_many: int, over_seeds: Sequence[Table] = ()
) -> Section:
    """All about one evaluation; `rows` are its methods', none where it has no results, `over_seeds` goes below them."""
    title, anchor = f"Evaluation: {run.name}", f"evaluation-{run.slug}"
    about = Text(f"{run.model} on {run.recipe.task.name}. {_decoding(run)}.")
    if not rows:
        return Section(anchor, title, [about, _nothing(run)])
    examined = Section(f"{anchor}-examples", "Side by side", examples(run, how_many))
    parts = [*strategies_section(run, how_many), examined]
    rows = [row for row in rows if row.method in run.without_b]
    if not rows:
        return Section(anchor, title, [about], parts)
    tokens = {row.method: interval(tokens_of((run.replies or {})[row.method])) for row in rows}
    seconds = {row.method: _seconds(run, row.method) for row in rows}
    cells = [{**vars(row), "output_tokens": tokens[row.method], "seconds": seconds[row.method]} for row in rows]
    results, answers = tables(cells, f"{rows[0].questions} questions", anchor, {"seconds": SECONDS})
    blocks: list[Block] = [about, Points(headlines(rows)), results, *over_seeds, *_clean(run, anchor), answers]
    blocks += [_notes(run, rows, seconds), _scatter(run, rows, tokens), _histograms(run)]
    return Section(anchor, title, blocks, parts)


def rows_of(run: EvaluationRun) -> list[Row]:
    """The evaluation's rows, from its replies; none where there are no replies."""
    recipe = run.recipe
    return summarise(run.replies or {}, baseline_of(recipe.methods), recipe.prices, recipe.noninferiority_margin / 100)


def interval(values: Sequence[float]) -> Interval:
    """The mean with its 95 % bootstrap interval."""
    return Interval(*bootstrap_mean(values))


def headlines(rows: Sequence[Row]) -> list[str]:
    """A sentence a method: how right, in how many tokens, compared with vanilla CoT."""
    return [f"{row.method}: {_headline(row)}" for row in rows if row.tokens_difference is not None] or [
        f"{row.method}: {_score(row)}, {number(row.output_tokens)} output tokens" for row in rows
    ]


def _score(row: Row) -> str:
    score = RESULTS[row.metric].show(row.score[0])
    return f"{score} % right" if row.metric == "accuracy" else f"{metric_name(row.metric)} {score}"


def _headline(row: Row) -> str:
    name = f"{row.metric}_difference"
    change = RESULTS[name].text(name, vars(row))
    if row.metric == "accuracy":
        change += " points to vanilla CoT; no more than "
        change += f"{100 * not_none(row.margin):g} points worse: {row.within_margin}"
    else:
        change += " to vanilla CoT"
    spent = f"{number(row.output_tokens)} output tokens ({two_digits(not_none(row.tokens_ratio))} × vanilla)"
    return f"{_score(row)} ({change}), {spent}"


def _nothing(run: EvaluationRun) -> Text:
    done = sum(len(journal.answers) for journal in run.journals)
    if run.replies is not None:
        return Text("No results: replies.jsonl is empty.", warning=True)
    advice = f"; {done:,} answers are in its journal, from which its command resumes" if done else ""
    state = "is of an earlier start with other methods or seeds" if run.file.is_file() else "is missing"
    return Text(f"No results: replies.jsonl {state}, the run was not finished{advice}.", warning=True)


def _decoding(run: EvaluationRun) -> str:
    s = run.recipe.sampling
    seeds = run.recipe.seeds or [s.seed]
    drawn = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    how = f"temperature {s.temperature:g}, {drawn}" if s.temperature else "greedy"
    return f"Same decoding for every method: {how}, at most {s.max_tokens:,} tokens"


def _notes(run: EvaluationRun, rows: Sequence[Row], seconds: dict[str, float | None]) -> Text:
    baseline, metric = baseline_of(run.recipe.methods), rows[0].metric
    text = f"{metric_name(metric)}: {'Wilson' if metric == 'accuracy' else 'mean over samples, bootstrap'} interval. "
    if rows[0].seeds:
        text = f"Every question was answered under {rows[0].seeds} seeds: means are over all answers, intervals are "
        text += "bootstraps over questions, each with all its answers; SD is that of the seeds' means. "
    text += "Tokens: means over all samples, right and wrong, bootstrap interval. "
    if baseline:
        verdicts = metric == "accuracy" and not rows[0].seeds  # one a question
        how = "accuracy's by the score interval, tokens' by a bootstrap" if verdicts else "bootstrap"
        text += f"Differences to {baseline}: paired by question, {how}. "
    if any(value is not None for value in seconds.values()):
        text += "Seconds are the engine's wall time over all its questions together, not a single user's wait."
    return Text(text)


def _seconds(run: EvaluationRun, label: str) -> float | None:
    times = [query.all_seconds for query in queries(run, label)]
    return None if None in times else float(numpy.mean(times))  # type: ignore[arg-type]


def _clean(run: EvaluationRun, anchor: str) -> list[Block]:
    """The table over the questions whose context was never trained on, where the run has one."""
    if not run.clean:
        return []
    caption = f"The {run.clean[0].questions} questions whose context was never trained on"
    rows = [row for row in run.clean if row.method in run.without_b]
    return [table_of(f"{anchor}-clean", caption, RESULTS, rows)]


def _scatter(run: EvaluationRun, rows: Sequence[Row], tokens: dict[str, Interval]) -> Figure:
    best = [row.method for row in pareto_front(rows)]
    metric = rows[0].metric
    caption = f"{metric_name(metric)} against tokens, with 95 % intervals. On the Pareto front: {', '.join(best)}."
    said = "; ".join(f"{r.method} {_score(r)} at {number(r.output_tokens)} tokens" for r in rows)

    def drawn(canvas: Canvas) -> None:
        draw(canvas.subplots(), rows, {method: (tokens[method].low, tokens[method].high) for method in tokens})
        legend(canvas)

    return figure(f"{metric}-tokens-{run.slug}", caption, f"{caption} {said}.", drawn, (4.6, 4.0))


def _histograms(run: EvaluationRun) -> Figure:
    replies: dict[str, list[Reply]] = run.replies or {}
    counts = {method: [r.output_tokens for r in replies[method]] for method in run.without_b}
    longest = max(max(tokens) for tokens in counts.values())
    bins = numpy.linspace(0, longest + 1, 41)

    def drawn(canvas: Canvas) -> None:
        panels = canvas.subplots(len(counts), sharex=True, squeeze=False)[:, 0]
        for i, (axes, (method, tokens)) in enumerate(zip(panels, counts.items(), strict=True)):
            axes.hist(tokens, bins=bins, color=COLOURS[i % len(COLOURS)])
            axes.axvline(numpy.mean(tokens), color="gray", lw=1, ls="--")
            axes.set_title(literal(method), loc="right", fontsize=10, y=0.7)
            axes.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        panels[-1].set_xlabel("output tokens of a question, the estimator's included")
        canvas.supylabel("answers", fontsize=10)

    medians = "; ".join(f"{method} {numpy.median(tokens):,.0f}" for method, tokens in counts.items())
    caption = "Output tokens of single answers; the dashed line is the mean."
    return figure(
        f"tokens-{run.slug}", caption, f"{caption} Medians: {medians}.", drawn, (4.6, 0.6 + 0.85 * len(counts))
    )
