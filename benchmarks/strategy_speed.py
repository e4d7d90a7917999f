"""How much longer do strategies take than plain sampling, for the same number of output tokens?

All sides run on this repository's transformers engine, in one process, with the same model, dtype, questions, prompts
(vanilla CoT), temperature and limit of a chain:

- `plain`: `chains` samples of each question, all of them there from the start;
- `step N`, for each N of `steps`: as many chains, each in steps of N tokens with continuation; after each step an
  answer of at most 8 tokens is forced from where the chain stands, and only then the next step is asked for, as in
  anytime reasoning;
- `sequential`: the samples of a question one after the other, as in budget-aware self-consistency.

Chains are drawn, so that the sides differ in tokens: compared is the time per output token, forced answers' included.
The sides take turns, each once a round. Time is the process's processor time, so that other processes on its core do
not count; with one thread (`OMP_NUM_THREADS=1`) it is the wall time of an idle core, and the wall time is told, too.

    OMP_NUM_THREADS=1 python benchmarks/strategy_speed.py [chains=2] [rounds=3] [steps=32,100]    # any key of a search

Prints medians over the rounds, as multiples of plain's time per token, and what each side generated; writes them to
runs/benchmarks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median

from plain import first_call
from report import publish
from tqdm import tqdm
from words import options

from tale.cli import guarded
from tale.config.recipes import load
from tale.data import prompts
from tale.inference import Completion, Message, Request, Sampling
from tale.inference.scheduler import Solver, solve
from tale.inference.transformers.engine import TransformersEngine
from tale.inference.transformers.prefix_cache import PrefixCache
from tale.models.base import resolve
from tale.search.recipe import SearchRecipe
from tale.tasks.selection import select_questions

RECIPE = [
    "recipe=search_qwen",
    "task.limit=8",
    "sampling.max_tokens=128",
    "sampling.temperature=0.7",
    "engine.batch_size=8",
]
FORCED, FORCED_TOKENS = "\nAnswer: [[", 8
TIMES = ("processor seconds", "wall seconds")
Figures = dict[str, float]


def sampled(requests: Sequence[Request]) -> Solver[list[Completion]]:
    """Requests that are all there from the start."""
    return [*(yield requests)]


def sequential(requests: Sequence[Request]) -> Solver[list[Completion]]:
    """One request after the other."""
    made: list[Completion] = []
    for request in requests:
        made += yield [request]
    return made


def in_steps(request: Request, step: int) -> Solver[list[Completion]]:
    """One chain in steps, with a forced answer after each."""
    made: list[Completion] = []
    left, messages = request.sampling.max_tokens, request.messages
    while left > 0:
        sampling = replace(request.sampling, max_tokens=min(step, left))
        made += yield [replace(request, messages=messages, sampling=sampling, continued=True)]
        if made[-1].finish == "stop":
            break
        left -= made[-1].tokens
        messages = (*messages, Message("assistant", made[-1].text, made[-1].ids))
        short = replace(request.sampling, max_tokens=FORCED_TOKENS)
        made += yield [
            replace(request, messages=(*messages, Message("assistant", FORCED)), sampling=short, stop=("]]",))
        ]
    return made


def main() -> None:
    own, words = options({"chains": "2", "rounds": "3", "steps": "32,100"})
    recipe = load(SearchRecipe, [*RECIPE, *words])
    base, config = resolve(recipe.model), recipe.engine
    engine = TransformersEngine(base.load(), base.chat(), config.batch_size)
    first_call(engine)
    sampling, samples = Sampling(**vars(recipe.sampling)), range(int(own["chains"]))
    questions, _ = select_questions(recipe.task)
    asked = [
        [Request.user(prompts.vanilla(question), sampling, sample) for sample in samples] for question in questions
    ]
    chains = [request for requests in asked for request in requests]
    sides: dict[str, Callable[[], list[Solver[list[Completion]]]]] = {
        "plain": lambda: [*map(sampled, asked)],
        **{f"step {n}": lambda n=int(n): [in_steps(chain, n) for chain in chains] for n in own["steps"].split(",")},  # type: ignore[misc]
        "sequential": lambda: [*map(sequential, asked)],
    }
    rounds: list[dict[str, Figures]] = []
    for _ in tqdm(range(int(own["rounds"])), unit="round"):
        rounds.append({name: measured(engine, make(), config.prefix_cache_gb) for name, make in sides.items()})
        report = {
            "model": base.name,
            "dtype": base.dtype,
            "questions, chains of each": [len(questions), len(samples)],
            "batch size": config.batch_size,
            "limit of a chain": sampling.max_tokens,
            "rounds": len(rounds),
            **{name: [of[name] for of in rounds] for name in sides},
            **{f"{name} / plain, {kind}": ratios(rounds, name, kind) for name in list(sides)[1:] for kind in TIMES},
        }
        text = publish("strategy_speed", report)
    print(text)


def measured(engine: TransformersEngine, solvers: Sequence[Solver[list[Completion]]], cache_gb: float) -> Figures:
    """Time and tokens of all solvers at the same time, with an empty prefix cache at first."""
    engine.prefixes = PrefixCache(cache_gb * 1e9)
    wall, processor = time.monotonic(), time.process_time()
    made = [completion for completions in solve(solvers, engine, len(solvers)) for completion in completions]
    return {
        "calls": len(made),
        "tokens": sum(completion.tokens for completion in made),
        "tokens of prompts": sum(completion.prompt_tokens for completion in made),
        "of these cached": sum(completion.cached_tokens for completion in made),
        "processor seconds": round(time.process_time() - processor, 2),
        "wall seconds": round(time.monotonic() - wall, 2),
    }


def ratios(rounds: Sequence[dict[str, Figures]], name: str, kind: str) -> dict[str, float]:
    """Time per output token as a multiple of plain's in the same round."""
    each = [of[name][kind] / of[name]["tokens"] / (of["plain"][kind] / of["plain"]["tokens"]) for of in rounds]
    return {"median": round(median(each), 3), "least": round(min(each), 3), "most": round(max(each), 3)}


if __name__ == "__main__":
    guarded(main, __doc__)
