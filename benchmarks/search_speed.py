"""How much faster is the search than the official procedure, one question at a time?

Both sides: the same model, weights, dtype (the recipe's `auto`: bfloat16 where the processor has products of it),
questions, prompts, decoding (greedy) and algorithm, in one process, one after the other. `batched` is this repository's
search. `one by one` runs the same strategy over one question after another through plain `model.generate` with one
prompt, nothing shared between calls, as the official `search_budget.py` does; its loop adds nothing to the calls, which
is shown by the share of time spent inside `generate`. Records are compared field by field: batching changes the
rounding of the model's arithmetic, so some answers differ, more of them in bfloat16; they are counted.

    python benchmarks/search_speed.py benchmark.path=gsm8k_zero/dev.jsonl    # any key of a search recipe

Prints questions and output tokens a second, the ratio, and the differences; writes them to runs/benchmarks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from plain import Plain, first_call
from report import publish
from tqdm import tqdm

from tale.cli import guarded
from tale.config import SearchRecipe
from tale.data.question import Question
from tale.data.selection import select
from tale.engines import Engine, Sampling
from tale.engines.transformers import TransformersEngine
from tale.models.base import resolve
from tale.recipes import load
from tale.records import Record
from tale.search.loop import search

RECIPE = ["recipe=gsm8k_zero/search_qwen", "benchmark.count=128", "engine.batch_size=128"]


def main() -> None:
    recipe = load(SearchRecipe, [*RECIPE, *sys.argv[1:]])
    base = resolve(recipe.model)
    questions, _ = select(recipe.benchmark)
    sampling, chat = Sampling(**vars(recipe.sampling)), base.chat()
    engine = TransformersEngine(base.load(), chat, recipe.engine.batch_size, prefix_cache=recipe.engine.prefix_cache)
    alone = Plain(base.load(), chat, batch_size=1)
    first_call(engine)
    first_call(alone)

    began = time.monotonic()
    batched = list(tqdm(search(questions, engine, sampling), total=len(questions), desc="batched"))
    batched_seconds = time.monotonic() - began
    began = time.monotonic()
    single = one_by_one(questions, alone, sampling)
    single_seconds = time.monotonic() - began
    report = {
        "questions": len(questions),
        "model": base.name,
        "dtype": base.dtype,
        "batch size": recipe.engine.batch_size,
        "batched: questions a second": round(len(questions) / batched_seconds, 3),
        "batched: output tokens a second": round(tokens(batched) / batched_seconds, 1),
        "batched: seconds a call": round(batched_seconds / calls(batched), 4),
        "one by one: questions a second": round(len(questions) / single_seconds, 4),
        "one by one: output tokens a second": round(alone.tokens / single_seconds, 1),
        "one by one: the same inside generate alone": round(alone.tokens / alone.seconds, 1),
        "times as many questions a second": round(single_seconds / batched_seconds, 1),
        "records equal": sum(a == b for a, b in zip(batched, with_name(single, engine.tokenizer), strict=True)),
        "same budget": sum(a.budget == b.budget for a, b in zip(batched, single, strict=True)),
        "targets: batched, one by one": [sum(bool(r.target) for r in records) for records in (batched, single)],
    }
    print(publish("search_speed", report))


def one_by_one(questions: Sequence[Question], engine: Engine, sampling: Sampling) -> list[Record]:
    """The search of one question after another, as the official procedure goes."""
    return [
        record for question in tqdm(questions, desc="one by one") for record in search([question], engine, sampling)
    ]


def calls(records: Sequence[Record]) -> int:
    """How many answers the search asked for."""
    return sum(len(attempt.answers) for r in records for attempt in (r.vanilla, *r.attempts))


def tokens(records: Sequence[Record]) -> int:
    """Output tokens of all answers."""
    return sum(answer.tokens for r in records for attempt in (r.vanilla, *r.attempts) for answer in attempt.answers)


def with_name(records: Sequence[Record], tokenizer: str) -> list[Record]:
    """The records, as if counted by `tokenizer`: the two engines share it."""
    return [Record(**{**vars(record), "tokenizer": tokenizer}) for record in records]


if __name__ == "__main__":
    guarded(main, __doc__)
