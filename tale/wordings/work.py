"""What a run of wordings would take: calls and tokens of each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

from tale.data import prompts
from tale.data.chat import Chat
from tale.data.question import Question
from tale.inference.build import find_chat
from tale.inference.costs import dollars
from tale.output.formats import whole
from tale.output.tables import Column, table_of
from tale.text import log_info
from tale.wordings.recipe import WordingsRecipe

WORK = {
    "task": Column("task"),
    "calls": Column("calls", whole),
    "read": Column("prompt tokens", whole),
    "most": Column("output tokens, at most", whole),
    "obeyed": Column("if every budget is obeyed", whole),
}


def show_work(recipe: WordingsRecipe, tasks: Mapping[str, Sequence[Question]]) -> None:
    """Print how many calls and tokens each task takes: at most, and if every budget were obeyed."""
    for model in recipe.models:
        chat = find_chat(model, recipe.engine)
        work = {name: _work(recipe, questions, chat) for name, questions in tasks.items()}
        work["all"] = tuple(map(sum, zip(*work.values(), strict=True)))
        unread = "" if chat else "; without its tokenizer the prompts' tokens are left open"
        rows = [dict(zip(WORK, (name, *values), strict=True)) for name, values in work.items()]
        table_of("work", f"{model.name_or_path}: calls and tokens{unread}", WORK, rows).show()
        if paid := dollars(recipe.prices, *work["all"][1:3]):
            log_info(f"at most ${paid:,.2f}")


def _work(recipe: WordingsRecipe, questions: Sequence[Question], chat: Chat | None) -> tuple[int, ...]:
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
