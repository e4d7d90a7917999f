"""On the terminal: what a run of wordings found, and what it would take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

from tale.data import prompts
from tale.data.chat import Chat
from tale.data.question import Question
from tale.inference.build import find_chat
from tale.inference.costs import dollars
from tale.output.tables import interval, show, shown
from tale.text import say
from tale.wordings.recipe import WordingsRecipe
from tale.wordings.regions import Best, Cell, Curve


def show_work(recipe: WordingsRecipe, tasks: Mapping[str, Sequence[Question]]) -> None:
    """Print how many calls and tokens each task takes: at most, and if every budget were obeyed."""
    for model in recipe.models:
        chat = find_chat(model, recipe.engine)
        work = {name: _work(recipe, questions, chat) for name, questions in tasks.items()}
        calls, read, most, asked = map(sum, zip(*work.values(), strict=True))
        rows = [*work.items(), ("all", (calls, read, most, asked))]

        unread = "" if chat else "; without its tokenizer the prompts' tokens are left open"
        headings = ["task", "calls", "prompt tokens", "output tokens, at most", "if every budget is obeyed"]
        cells = [[name, *(f"{value:,}" for value in values)] for name, values in rows]
        show(f"{model.source}: calls and tokens{unread}", headings, cells)
        if paid := dollars(recipe.prices, read, most):
            say(f"at most ${paid:,.2f}")


def show_results(cells: Sequence[Cell], curves: Sequence[Curve], best: Sequence[Best]) -> None:
    """Print a table for each model and task, a line a wording, and the best ones."""
    for vanilla in (cell for cell in cells if cell.budget is None):
        whose = (vanilla.model, vanilla.task)
        of = {(c.wording, c.budget): c for c in cells if (c.model, c.task) == whose and c.budget is not None}
        budgets = sorted({budget for _, budget in of if budget is not None})
        rows = [
            [w.wording, interval(w.slope, w.slope_low, w.slope_high, 2), *(_cell(of[w.wording, b]) for b in budgets)]
            for w in curves
            if (w.model, w.task) == whose
        ]
        said = f"{vanilla.questions} questions, right % / tokens by budget; vanilla CoT {_cell(vanilla)}"
        show(f"{vanilla.task}, {vanilla.model}: {said}", ["wording", "slope [95 %]", *map(str, budgets)], rows)
    if not best:
        say("no wording and budget takes few enough tokens to be the best (share=…)")
        return
    headings = ["model", "task", "wording", "budget", "questions", "right % [95 %]", "Δ to vanilla", "tokens",
                "× vanilla", "the paper's line, budget", "Δ to it", "Δ tokens to it"]  # fmt: skip
    title = "The best wording, chosen on one half of the questions, as the other half answers it"
    show(title, headings, [_best(row) for row in best])


def _work(recipe: WordingsRecipe, questions: Sequence[Question], chat: Chat | None) -> tuple[int, int, int, int]:
    """Calls, prompt tokens, output tokens at most, and output tokens if every budget is obeyed."""
    limit, most = recipe.sampling.max_tokens, max(recipe.budgets)
    lines, count = [wording.budget_line for wording in recipe.wordings], len(questions)

    def read(prompt: str) -> int:
        return len(chat.prompt_ids(prompt)) if chat else 0

    budgeted = sum(read(prompts.budgeted(q, most, line)) for q, line in product(questions, lines))
    calls = count * (1 + len(lines) * len(recipe.budgets))
    obeyed = count * (limit + len(lines) * sum(min(budget, limit) for budget in recipe.budgets))
    vanilla = sum(read(prompts.vanilla(q)) for q in questions)
    return calls, vanilla + len(recipe.budgets) * budgeted, calls * limit, obeyed


def _cell(cell: Cell) -> str:
    found = f"{100 * cell.accuracy:.1f} / {cell.used:.1f}"
    return f"{found} {cell.region}" if cell.region else found


def _best(row: Best) -> list[str]:
    return [
        row.model,
        row.task,
        row.wording,
        str(row.budget),
        str(row.questions),
        interval(row.accuracy, row.accuracy_low, row.accuracy_high, factor=100),
        interval(row.to_vanilla, row.to_vanilla_low, row.to_vanilla_high, factor=100, sign="+"),
        shown(row.used),
        shown(row.used_ratio, 2),
        shown(row.paper_budget, 0),
        interval(row.to_paper, row.to_paper_low, row.to_paper_high, factor=100, sign="+"),
        interval(row.tokens_to_paper, row.tokens_to_paper_low, row.tokens_to_paper_high, sign="+"),
    ]
