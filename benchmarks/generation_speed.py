"""How many output tokens a second do the engines give?

`plain` is transformers' own `model.generate`, called on batches in file order: what one writes first. `tale` is the
transformers engine of this repository, at the same batch size. `vllm`, where it is installed, has as many prompts in
flight as vLLM is at its best with; its start is told apart. All have the same weights, dtype, prompts (vanilla CoT),
greedy decoding and limit, in one run, one after the other. Token counts differ by the rounding of the arithmetic.

    python benchmarks/generation_speed.py benchmark.path=gsm8k_zero/dev.jsonl      # any key of a search recipe
    .venv-vllm/bin/python benchmarks/generation_speed.py …                         # with vLLM

Prints output tokens a second and the ratios; writes them to runs/benchmarks.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import GenerationConfig

from tale import prompts
from tale.chat import Chat
from tale.cli import guarded
from tale.config import SearchRecipe
from tale.data.selection import select
from tale.engines import Completion, Request, Sampling
from tale.engines.transformers import TransformersEngine
from tale.engines.vllm import VllmEngine, served_folder
from tale.files import write_atomic
from tale.models.base import resolve
from tale.recipes import load
from tale.runs import code_version

RECIPE = [
    "recipe=gsm8k_zero/search_smollm2",
    "benchmark.count=256",
    "sampling.max_tokens=256",
    "model.dtype=float32",
]
IN_FLIGHT = 256  # of vLLM


class Plain:
    """`model.generate` on left-padded batches, as they come."""

    def __init__(self, model, chat: Chat, batch_size: int):
        self.model, self.chat, self.batch_size = model.eval(), chat, batch_size

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        end, tokenizer = self.chat.end_id, self.chat.tokenizer
        config = GenerationConfig(
            do_sample=False, max_new_tokens=sampling.max_tokens, eos_token_id=end, pad_token_id=end
        )
        for start in range(0, len(requests), self.batch_size):
            ids = [self.chat.prompt_ids(request.prompt) for request in requests[start : start + self.batch_size]]
            batch = tokenizer.pad({"input_ids": ids}, padding_side="left", return_tensors="pt")
            with torch.inference_mode():
                output = self.model.generate(**batch, generation_config=config)
            for i, row in enumerate(output[:, batch["input_ids"].shape[1] :].tolist(), start):
                kept = row[: row.index(end) + 1] if end in row else row
                yield i, Completion(self.chat.decode(kept), len(kept), "stop" if end in row else "length", 0)


def main() -> None:
    recipe = load(SearchRecipe, [*RECIPE, *sys.argv[1:]])
    base, size = resolve(recipe.model), recipe.engine.batch_size
    requests = [Request(prompts.vanilla(question)) for question in select(recipe.benchmark)[0]]
    sampling, chat = Sampling(**vars(recipe.sampling)), base.chat()
    makers = {
        "plain": lambda: Plain(base.load(), chat, size),
        "tale": lambda: TransformersEngine(base.load(), chat, size),
    }
    if importlib.util.find_spec("vllm"):
        makers["vllm"] = lambda: VllmEngine(
            served_folder(base), chat, base.name, base.dtype, recipe.engine.vllm, IN_FLIGHT
        )
    report = {"prompts": len(requests), "batch size": size, "limit": sampling.max_tokens, "dtype": base.dtype}
    speed, texts = {}, {}
    for name, make in makers.items():
        began = time.monotonic()
        engine = make()
        list(engine.generate([Request("Warm up.")], Sampling(4)))
        started = time.monotonic()
        done = dict(tqdm(engine.generate(requests, sampling), total=len(requests), desc=name, unit="answer"))
        speed[name] = sum(completion.tokens for completion in done.values()) / (time.monotonic() - started)
        texts[name] = [done[i].text for i in range(len(requests))]
        report[f"{name}: output tokens a second"] = round(speed[name], 1)
        report[f"{name}: seconds to start"] = round(started - began, 1)
    for name in makers.keys() - {"tale"}:
        report[f"tale / {name}"] = round(speed["tale"] / speed[name], 2)
        report[f"answers equal to {name}'s"] = sum(a == b for a, b in zip(texts["tale"], texts[name], strict=True))
    report["commit"] = code_version()
    text = json.dumps(report, indent=1)
    write_atomic(Path("runs/benchmarks/generation_speed.json"), text + "\n")
    print(text)


if __name__ == "__main__":
    guarded(main)
