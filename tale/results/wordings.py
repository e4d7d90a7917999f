"""The section of a run of wordings: regions by wording and budget, the best wordings, and a figure a task."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from matplotlib.figure import Figure as Canvas

from tale.results.blocks import (
    Block,
    Column,
    Figure,
    Section,
    Table,
    Text,
    cells_of,
    interval_of,
    number,
    percent,
    points,
    signed,
    table_of,
    two_digits,
    whole,
)
from tale.results.figures import figure
from tale.results.runs import WordingsRun
from tale.wordings.plot import draw, key, wordings_of
from tale.wordings.regions import Best, Cell, Curve

BEST = (
    Column("wording", "wording"),
    Column("model", "model"),
    Column("task", "task"),
    Column("budget", "budget", whole),
    Column("questions", "questions", whole),
    Column("accuracy", "right, %", percent),
    Column("to_vanilla", "Δ to vanilla CoT, points", points),
    Column("used", "tokens", number),
    Column("used_ratio", "× vanilla", two_digits),
    Column("paper_budget", "budget", whole, "the paper's line"),
    Column("to_paper", "Δ to it, points", points, "the paper's line"),
    Column("tokens_to_paper", "Δ tokens to it", number, "the paper's line"),
)
NOTE = (
    "Tokens are means; regions go by medians. Overdone: less than half of the budget, or of the vanilla answer where "
    "that is shorter. Obeyed: otherwise within the budget, and answers grow with the budget (the interval of the slope "
    "of log tokens on log budget lies above 0.1: under ten times the budget at least a quarter longer). Ignored: "
    "everything else. In brackets 95 % intervals. The best wording "
    "and budget, and the paper's line's best budget, are chosen on one half of the questions by accuracy, among those "
    "with at most {share:g} of vanilla CoT's tokens, and shown as the other half answers them."
)


def wordings_section(run: WordingsRun) -> Section:
    """All about one run."""
    cells, anchor, title = run.rows(Cell), f"wordings-{run.slug}", f"Wordings: {run.name}"
    if not cells:
        text = "No results: the run was not finished; its command makes them, from where it stopped."
        return Section(anchor, title, [Text(text, warning=True)])
    curves = {(curve.model, curve.task, curve.wording): curve for curve in run.rows(Curve)}
    whose = lambda cell: (cell.task, cell.model)  # noqa: E731
    each = [list(of) for _, of in groupby(sorted(cells, key=whose), key=whose)]
    blocks: list[Block] = [_regions(f"{anchor}-{i}", of, curves) for i, of in enumerate(each, 1)]
    if best := run.rows(Best):
        intervals = ("accuracy", "to_vanilla", "to_paper", "tokens_to_paper")
        caption = "The best wordings, confirmed on the other half of the questions"
        blocks.append(table_of(f"{anchor}-best", caption, BEST, [cells_of(row, *intervals) for row in best]))
    tasks = {task: [cell for cell in cells if cell.task == task] for task in dict.fromkeys(cell.task for cell in cells)}
    blocks += [Text(NOTE.format(share=run.recipe.share)), *(_drawn(anchor, task, of) for task, of in tasks.items())]
    return Section(anchor, title, blocks)


def _regions(name: str, cells: Sequence[Cell], curves: dict[tuple[str, str, str], Curve]) -> Table:
    """A row a wording of one model on one task; for each budget accuracy, tokens and region."""
    (vanilla,) = (cell for cell in cells if cell.budget is None)
    columns = [Column("wording", "wording"), Column("slope", "slope", signed)]
    rows: dict[str, dict[str, Any]] = {}
    for cell in cells:
        group = "" if cell.budget is None else f"{cell.budget} tokens"
        row = rows.setdefault(cell.wording, {"wording": cell.wording})
        if curve := curves.get((cell.model, cell.task, cell.wording)):
            row["slope"] = interval_of(curve, "slope")
        row |= {f"accuracy_{cell.budget}": cell.accuracy, f"used_{cell.budget}": cell.used}
        row[f"region_{cell.budget}"] = cell.region
        columns += [
            Column(f"accuracy_{cell.budget}", "right, %", percent, group),
            Column(f"used_{cell.budget}", "tokens", number, group),
            Column(f"region_{cell.budget}", "region", group=group),
        ]
    unique = list({column.name: column for column in columns}.values())
    caption = f"{vanilla.task}, {vanilla.model}: {vanilla.questions} questions by wording and budget"
    return table_of(name, caption, unique, list(rows.values()))


def _drawn(anchor: str, task: str, cells: Sequence[Cell]) -> Figure:
    count = len(wordings_of(cells))

    def drawn(canvas: Canvas) -> None:
        draw(list(canvas.subplots(count, 2, squeeze=False)), cells)
        key(canvas, cells, 2)

    caption = f"{task}: accuracy and tokens by the budget asked for, a row a wording; dashed is vanilla CoT."
    asked = [cell for cell in cells if cell.budget is not None]
    said = "; ".join(
        f"{model}, {wording}: {', '.join(f'{cell.region} at {cell.budget}' for cell in of)}"
        for (model, wording), of in groupby(asked, key=lambda cell: (cell.model, cell.wording))
    )
    return figure(f"{anchor}-{task}", caption, f"{caption} {said}.", drawn, (4.6, 1.4 + 1.9 * count))
