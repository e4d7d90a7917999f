"""Does a step take the memory that the plan says? One recipe, the real step, an architecture with random weights.

The recipe's own code builds the module and trains it, `train.max_steps` optimizer steps (default: one) of the plan's
largest examples, filled with random ids. 4-bit weights are made layer by layer: a Llama-3.1-8B in NF4 never takes more
than the 4-bit model and one layer. The plan is made in a separate process, by `plan=true`'s code, before the step.
The peak is the process's largest resident size, so that interpreter and libraries are in both figures.

    python benchmarks/step_memory.py recipe=sft_llama8b model.quantization=nf4 data.max_length=512 \
        train.global_batch_size=4 train.micro_batch_size=1 fabric.accelerator=cpu     # 4 micro-batches of 512 tokens
    python benchmarks/step_memory.py recipe=dpo_llama8b model.quantization=nf4 data.max_length=512 \
        train.global_batch_size=1 train.micro_batch_size=1 fabric.accelerator=cpu     # a pair of 2 x 512 tokens
    python benchmarks/step_memory.py recipe=grpo_llama8b data.max_length=256 grpo.max_completion_length=128 \
        grpo.num_generations=4 train.global_batch_size=4 train.micro_batch_size=4 fabric.accelerator=cpu \
        data.val_fraction=0 train.early_stopping_patience=null    # the step alone
        # a group of 4 answers of 128 tokens, sampled by the model itself, to a prompt of 128
    … layers=1                                                            # the same, with so many decoder layers

Prints peak and plan, the error, loss, gradient norm and seconds; writes them to runs/benchmarks.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace

import torch
from report import publish
from words import options

from tale.cli import guarded
from tale.config.recipes import load
from tale.config.training import Objective, TrainRecipe
from tale.data.examples import Example, micro_batches
from tale.hardware.devices import GB, peak_memory
from tale.inference import Request, Sampling
from tale.inference.requests import complete
from tale.inference.transformers.live import live_engine
from tale.inference.transformers.probe import IdsChat
from tale.memory.measure import largest_examples
from tale.memory.plan import plan
from tale.models.architectures import random_model, read_architecture
from tale.models.modules import CausalLMModule, build_module
from tale.runs.devices import make_fabric
from tale.training.loop import train_step


def main() -> None:
    own, words = options({"layers": "", "planned": "false"})
    recipe = load(TrainRecipe, words)
    architecture = read_architecture(recipe.model)
    if own["layers"]:
        architecture.num_hidden_layers = int(own["layers"])
    if own["planned"] == "true":
        print(json.dumps({line.part: line.bytes for line in plan(recipe, architecture).lines}))
        return
    done = subprocess.run([sys.executable, *sys.argv, "planned=true"], stdout=subprocess.PIPE, check=True)
    planned = json.loads(done.stdout.splitlines()[-1])
    figures = step(recipe, architecture)
    total = sum(planned.values())
    figures |= {
        "plan, GB": round(total / GB, 3),
        "error of the plan, %": round(100 * (total / GB / figures["peak, GB"] - 1), 1),
        "the plan's parts, GB": {part: round(size / GB, 3) for part, size in planned.items()},
        "arguments": sys.argv[1:],
    }
    print(publish(f"step_memory_{recipe.objective.value}", figures))


def step(recipe: TrainRecipe, architecture) -> dict:
    """Train for real; the peak, what was held before the step, and what came of it."""
    fabric = make_fabric(recipe.fabric, recipe.fabric.accelerator, precision=recipe.fabric.precision)
    fabric.seed_everything(recipe.train.seed, verbose=False)
    began = time.perf_counter()
    with fabric.device:
        model = random_model(architecture, getattr(torch, recipe.model.dtype.value), recipe.model.quantization)
    module = build_module(recipe, model, "random")
    model, optimizer = fabric.setup(module, module.configure_optimizers())
    built, before = time.perf_counter() - began, peak_memory(fabric.device)
    steps = recipe.train.max_steps or 1
    began = time.perf_counter()
    for _ in range(steps):
        examples = [
            scrambled(e, architecture.vocab_size) for e in largest_examples(recipe, recipe.train.global_batch_size)
        ]
        sampling = time.perf_counter()
        if recipe.objective is Objective.grpo:
            examples = sampled(recipe, module, examples)
        sampling = time.perf_counter() - sampling
        batches = [batch.to(fabric.device) for batch in micro_batches(examples, recipe.train.micro_batch_size)]
        metrics = train_step(fabric, model, optimizer, batches, recipe.optimizer.max_grad_norm)
    return {
        "peak, GB": round(peak_memory(fabric.device) / GB, 3),
        "peak while it was built, GB": round(before / GB, 3),
        "seconds to build": round(built, 3),
        "seconds a step": round((time.perf_counter() - began) / steps, 3),
        "of these sampling the last step's answers": round(sampling, 3),
        "micro-batches": len(batches),
        "loss": metrics["loss"],
        "gradient norm": metrics["grad_norm"],
    }


def scrambled(example: Example, vocabulary: int) -> Example:
    """The example with random ids."""
    ids = lambda count: torch.randint(0, vocabulary, (count,)).tolist()  # noqa: E731
    return replace(
        example, prompt=ids(len(example.prompt)), answers=tuple(ids(len(answer)) for answer in example.answers)
    )


def sampled(recipe: TrainRecipe, module: CausalLMModule, examples: list[Example]) -> list[Example]:
    """The groups with answers that the module itself samples to their prompts, of full length but for a rare end."""
    chat, engine = IdsChat(module.base.config.vocab_size - 1), recipe.engine
    requests = [
        replace(
            Request.user(json.dumps(e.prompt), Sampling(recipe.grpo.max_completion_length, recipe.grpo.temperature), n),
            logprobs=True,
            processed_logprobs=True,
        )
        for e in examples
        for n in range(len(e.answers))
    ]
    sizes = engine.batch_size, engine.prefix_cache_gb
    with live_engine(module.base, chat, *sizes, module.loaded_attention) as live:
        found = iter(complete(live, requests, "answers"))
    groups = [[next(found) for _ in e.answers] for e in examples]
    return [
        replace(e, answers=tuple(list(c.ids) for c in of), logprobs=tuple(c.logprobs for c in of))
        for e, of in zip(examples, groups, strict=True)
    ]


if __name__ == "__main__":
    guarded(main, __doc__)
