"""The section of a comparison of wordings: regions by wording and budget, best wordings, and one figure per task."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from matplotlib.figure import Figure as Canvas

from tale.results.blocks import Block, Figure, Section, Text
from tale.results.figures import figure
from tale.results.runs import WordingsRun
from tale.wordings.plot import draw, legend, wordings_of
from tale.wordings.regions import Best, Cell, Curve, best_table, region_tables

NOTE = (
    "Tokens are means; regions go by medians. Overdone: less than half of the budget, or of the vanilla answer where "
    "that is shorter. Obeyed: otherwise within the budget, and answers grow with the budget (the interval of the slope "
    "of log tokens on log budget lies above 0.1: under ten times the budget at least a quarter longer). Ignored: "
    "everything else. In brackets 95 % intervals. The best wording "
    "and budget, and the paper's line's best budget, are chosen on one half of the questions by accuracy, among those "
    "with at most {share:g} of vanilla CoT's tokens, and shown as the other half answers them."
)


def wordings_section(run: WordingsRun) -> Section:
    """The section of one run."""
    cells, anchor, title = run.rows(Cell), f"wordings-{run.slug}", f"Wordings: {run.name}"
    if not cells:
        text = "No results: the run was not finished; its command makes them, from where it stopped."
        return Section(anchor, title, [Text(text, warning=True)])
    blocks: list[Block] = [*region_tables(anchor, cells, run.rows(Curve))]
    if best := run.rows(Best):
        blocks.append(best_table(anchor, best))
    tasks = {task: [cell for cell in cells if cell.task == task] for task in dict.fromkeys(cell.task for cell in cells)}
    blocks += [
        Text(NOTE.format(share=run.recipe.max_token_ratio)),
        *(_drawn(anchor, task, of) for task, of in tasks.items()),
    ]
    return Section(anchor, title, blocks)


def _drawn(anchor: str, task: str, cells: Sequence[Cell]) -> Figure:
    count = len(wordings_of(cells))

    def drawn(canvas: Canvas) -> None:
        draw(list(canvas.subplots(count, 2, squeeze=False)), cells)
        legend(canvas, cells, 2)

    caption = f"{task}: accuracy and tokens by the budget asked for, a row a wording; dashed is vanilla CoT."
    asked = [cell for cell in cells if cell.budget is not None]
    said = "; ".join(
        f"{model}, {wording}: {', '.join(f'{cell.region} at {cell.budget}' for cell in of)}"
        for (model, wording), of in groupby(asked, key=lambda cell: (cell.model, cell.wording))
    )
    return figure(f"{anchor}-{task}", caption, f"{caption} {said}.", drawn, (4.6, 1.4 + 1.9 * count))
