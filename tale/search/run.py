"""A whole search run: questions, model, journal, records, summary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tale import prompts
from tale.chat import Chat
from tale.config import SearchRecipe
from tale.data.question import Question
from tale.data.selection import select
from tale.engines import Sampling
from tale.engines.build import build_engine
from tale.errors import UserError
from tale.models.base import resolve
from tale.records import Attempt, Record, write_records
from tale.runs import start_run
from tale.search.rounds import search
from tale.search.strategies import STRATEGIES, Search, most_calls


def run_search(recipe: SearchRecipe) -> Path | None:
    """Run a search recipe; the file of records, or None for a dry run.

    Raises:
        UserError: bad input, before any weights are loaded.
    """
    if recipe.samples > 1 and recipe.sampling.temperature == 0:
        raise UserError(f"samples={recipe.samples}: greedy decoding draws the same answer; set sampling.temperature")
    if recipe.strategy == "grid" and not (recipe.grid and min(recipe.grid) > 0):
        raise UserError(f"grid={recipe.grid}: one or more shares above 0")
    base = resolve(recipe.model)
    questions, dropped = select(recipe.benchmark)
    strategy = _strategy(recipe)
    if recipe.dry_run:
        print(most_work(recipe, questions, strategy, base.chat()))
        return None
    folder = start_run(recipe, base=base.identity, questions={"searched": len(questions), "duplicates": dropped})
    engine = build_engine(recipe.engine, base, folder)
    sampling = Sampling(**vars(recipe.sampling))
    records = search(questions, engine, sampling, recipe.samples, strategy, recipe.rule)
    file = folder / "records.jsonl"
    write_records(file, records)
    print(f"{summary(records)}\nrecords: {file}")
    return file


def _strategy(recipe: SearchRecipe) -> Callable[[Attempt], Search]:
    strategy = STRATEGIES[recipe.strategy]
    return partial(strategy, shares=recipe.grid) if recipe.strategy == "grid" else strategy


def most_work(
    recipe: SearchRecipe, questions: Sequence[Question], strategy: Callable[[Attempt], Search], chat: Chat
) -> str:
    """What the search can take at most: every vanilla answer as long as it may be, and every answer right."""
    limit, each = recipe.sampling.max_tokens, recipe.samples
    budgets = most_calls(strategy, limit)
    calls = len(questions) * each * (1 + budgets)
    vanilla = sum(len(chat.prompt_ids(prompts.vanilla(q))) for q in questions)
    budgeted = sum(len(chat.prompt_ids(prompts.budgeted(q, limit))) for q in questions)
    return (
        f"at most {len(questions)} questions × {each} samples × (vanilla + {budgets} budgets) = {calls:,} calls, "
        f"{each * (vanilla + budgets * budgeted):,} prompt tokens, {calls * limit:,} output tokens"
    )


def summary(records: list[Record]) -> str:
    """How many have a target, their mean tokens before and after, the share saved, and why the rest has none."""
    found = [r for r in records if r.target]
    lines = [f"{len(records)} questions, {len(found)} with a target"]
    if found:
        before = sum(r.vanilla.best.tokens for r in found) / len(found)
        after = sum(r.target.tokens for r in found if r.target) / len(found)
        lines.append(f"their mean tokens: vanilla {before:.1f}, target {after:.1f}, {1 - after / before:.1%} saved")
    reasons = [r.reason for r in records if r.reason]
    lines += [f"{reasons.count(reason)} without: {reason}" for reason in sorted(set(reasons))]
    return "\n".join(lines)
