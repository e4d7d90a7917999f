"""How much faster is the search than the official procedure, one question at a time?

Both sides: the same model, weights, dtype (the recipe's `auto`: bfloat16 where the processor has products of it),
questions, prompts, decoding (greedy) and algorithm, in one process, one after the other. `batched` is this repository's
search, over all questions. `one by one` runs the same strategy over one question after another through plain
`model.generate` with one prompt, nothing shared between calls, as the official `search_budget.py` does, over as many of
them as `alone` says, chosen evenly: its time is the sum of its questions', so that more of them change nothing but its
spread. Its loop adds nothing to the calls, which is shown by the share of time spent inside `generate`. Records of the
questions that both had are compared field by field: batching changes the rounding of the model's arithmetic, so some
answers differ, more of them in bfloat16; they are counted.

    python benchmarks/search_speed.py task.path=gsm8k_zero/dev.jsonl [alone=24]    # and any key of a search recipe

Prints questions and output tokens a second, their ratios (of questions, which differ in length, and of tokens), and the
differences; writes them to runs/benchmarks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from plain import Plain, first_call
from report import publish
from tqdm import tqdm
from words import options

from tale.cli import guarded
from tale.config.recipes import load
from tale.data.question import Question
from tale.data.records import Record
from tale.inference import Engine, Sampling
from tale.inference.transformers.engine import TransformersEngine
from tale.models.base import resolve
from tale.search.recipe import SearchRecipe
from tale.search.solver import search
from tale.tasks.selection import select_questions

RECIPE = ["recipe=gsm8k_zero/search_qwen", "task.limit=192", "engine.batch_size=128"]


def main() -> None:
    own, words = options({"alone": "24"})
    recipe = load(SearchRecipe, [*RECIPE, *words])
    base = resolve(recipe.model)
    questions, _ = select_questions(recipe.task)
    count = min(int(own["alone"]), len(questions))
    chosen = [i * len(questions) // count for i in range(count)]
    sampling, chat = Sampling(**vars(recipe.sampling)), base.chat()
    engine = TransformersEngine(
        base.load(), chat, recipe.engine.batch_size, prefix_cache_gb=recipe.engine.prefix_cache_gb
    )
    alone = Plain(base.load(), chat, batch_size=1)
    first_call(engine)
    first_call(alone)

    began = time.monotonic()
    batched = list(tqdm(search(questions, engine, sampling), total=len(questions), desc="batched"))
    batched_seconds = time.monotonic() - began
    began = time.monotonic()
    single = one_by_one([questions[i] for i in chosen], alone, sampling)
    single_seconds = time.monotonic() - began
    speed = {"batched": len(questions) / batched_seconds, "one by one": count / single_seconds}
    made = {"batched": tokens(batched) / batched_seconds, "one by one": alone.tokens / single_seconds}
    same = [batched[i] for i in chosen]
    report = {
        "questions: batched, one by one": [len(questions), count],
        "output tokens a question: batched, one by one": [
            round(tokens(records) / len(records), 1) for records in (batched, single)
        ],
        "model": base.name,
        "dtype": base.dtype,
        "batch size": recipe.engine.batch_size,
        "seconds: batched, one by one": [round(batched_seconds), round(single_seconds)],
        **{f"{way}: questions a second": round(speed[way], 4) for way in speed},
        **{f"{way}: output tokens a second": round(made[way], 1) for way in made},
        "batched: seconds a call": round(batched_seconds / calls(batched), 4),
        "one by one: output tokens a second inside generate alone": round(alone.tokens / alone.seconds, 1),
        "times as many questions a second": round(speed["batched"] / speed["one by one"], 1),
        "times as many output tokens a second": round(made["batched"] / made["one by one"], 1),
        "records equal": sum(a == b for a, b in zip(same, with_name(single, engine.tokenizer), strict=True)),
        "same budget": sum(a.budget == b.budget for a, b in zip(same, single, strict=True)),
        "targets: batched, one by one": [sum(bool(r.target) for r in records) for records in (same, single)],
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
