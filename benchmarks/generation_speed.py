"""How many output tokens per second do the engines generate?

`plain` is transformers' own `model.generate`, called on batches in file order: what one writes first. `tale` is the
transformers engine of this repository, at the same batch size. `vllm`, where it is installed, has as many prompts in
flight as vLLM is at its best with; its start is told apart. All have the same weights, dtype (the recipe's `auto`:
bfloat16 where the processor has products of it), prompts (vanilla CoT), greedy decoding and limit, in one run, one
after the other. Token counts differ by the rounding of the arithmetic.

    python benchmarks/generation_speed.py task.path=gsm8k_zero/dev.jsonl      # any key of a search recipe
    .venv-vllm/bin/python benchmarks/generation_speed.py …                         # with vLLM
    .venv-vllm/bin/python benchmarks/generation_speed.py … engines=tale,vllm       # without plain, the slowest by far

Prints output tokens a second and the ratios; writes them to runs/benchmarks.
"""

from __future__ import annotations

import importlib.util
import time

from plain import Plain, first_call
from report import publish
from tqdm import tqdm
from words import named, options

from tale.cli import guarded
from tale.config.recipes import load
from tale.data import prompts
from tale.inference import Request, Sampling
from tale.inference.requests import request_source
from tale.inference.transformers.engine import TransformersEngine
from tale.inference.vllm import VllmEngine
from tale.models.base import resolve
from tale.search.recipe import SearchRecipe
from tale.tasks.selection import select_questions

RECIPE = [
    "recipe=gsm8k_zero/search_qwen",
    "task.limit=256",
    "sampling.max_tokens=256",
]
IN_FLIGHT = 256  # of vLLM
ENGINES = ("plain", "tale", "vllm")


def main() -> None:
    own, words = options({"engines": ",".join(ENGINES)})
    chosen = named(own["engines"], ENGINES, "engines")
    recipe = load(SearchRecipe, [*RECIPE, *words])
    base, size = resolve(recipe.model), recipe.engine.batch_size
    sampling, chat = Sampling(**vars(recipe.sampling)), base.chat()
    requests = [Request.user(prompts.vanilla(question), sampling) for question in select_questions(recipe.task)[0]]
    makers = {
        "plain": lambda: Plain(base.load(), chat, size),
        "tale": lambda: TransformersEngine(base.load(), chat, size),
    }
    if importlib.util.find_spec("vllm"):
        makers["vllm"] = lambda: VllmEngine(
            base.checkpoint_folder(), chat, base.name, base.dtype, recipe.engine.vllm, IN_FLIGHT
        )
    makers = {name: make for name, make in makers.items() if name in {"tale", *chosen}}
    report = {"prompts": len(requests), "batch size": size, "limit": sampling.max_tokens, "dtype": base.dtype}
    speed, texts = {}, {}
    for name, make in makers.items():
        began = time.monotonic()
        engine = make()
        first_call(engine)
        started = time.monotonic()
        done = dict(tqdm(engine.generate(request_source(requests)), total=len(requests), desc=name, unit="answer"))
        speed[name] = sum(completion.tokens for completion in done.values()) / (time.monotonic() - started)
        texts[name] = [done[i].text for i in range(len(requests))]
        report[f"{name}: output tokens a second"] = round(speed[name], 1)
        report[f"{name}: seconds to start"] = round(started - began, 1)
    for name in makers.keys() - {"tale"}:
        report[f"tale / {name}"] = round(speed["tale"] / speed[name], 2)
        report[f"answers equal to {name}'s"] = sum(a == b for a, b in zip(texts["tale"], texts[name], strict=True))
    print(publish("generation_speed", report))


if __name__ == "__main__":
    guarded(main, __doc__)
