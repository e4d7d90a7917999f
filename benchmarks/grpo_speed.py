"""A GRPO step of this code, rollout and update, against TRL's GRPOTrainer, in one run.

    pip install -c constraints.txt -e '.[peers]'
    python benchmarks/grpo_speed.py task.path=dev.jsonl    # recipe=gsm8k_zero/grpo_qwen, both sides in its precision
    python benchmarks/grpo_speed.py … rounds=3 steps=2 sizes=4,8,16 train.global_batch_size=32 grpo.num_generations=8
    python benchmarks/grpo_speed.py … model.dtype=float32 fabric.precision=32-true

Fair, because both sides train the same model in the same type with LoRA on the same modules from the same initial
adapter, by the same loss (Dr. GRPO, no KL term) and the same rewards of the same code, with torch's AdamW at a
constant rate. They sample as many answers to the same prompts at the same temperature, at most
`grpo.max_completion_length` tokens each. The draws differ, so tokens are printed, too. TRL computes what it must and
no more: gradient checkpointing off, no saving, no evaluation; it samples all answers of a step by transformers'
`generate`, the engine that it has on a CPU. Each measurement is a separate process, so that its peak memory is its
own, and its first step does not count.

First each side runs once at each of `sizes` as its micro-batch, in answers. TRL takes its fastest, this code its
fastest of those with no more memory than TRL's then has. The two alternate for `rounds` rounds, whose medians count.

Prints steps an hour, tokens sampled a second, peak memory and the ratios; writes them to runs/benchmarks.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from datasets import Dataset
from lightning import Fabric
from report import publish
from tqdm import tqdm
from training_speed import choose, overview
from training_steps import child, limit_memory, measure
from trl_steps import Clock, settings
from words import options

from tale.cli import guarded
from tale.config.recipes import load
from tale.config.training import GRPOConfig, TrainRecipe
from tale.data.datamodule import TaleDataModule
from tale.data.question import Question
from tale.inference import Completion
from tale.models.base import BaseModel, resolve
from tale.models.modules import CausalLMModule, build_module
from tale.rewards import total_rewards
from tale.storage.files import remove
from tale.training.check import check_grpo, questions_to_ask
from tale.training.groups import outcome, prompt_of
from tale.training.loop import train_step
from tale.training.policy import LivePolicy
from tale.training.rollouts import Rollouts

SIDES = ("tale", "trl")
RECIPE = [
    *["recipe=gsm8k_zero/grpo_qwen", "fabric.accelerator=cpu", "data.val_fraction=0", "train.epochs=1000"],
    *["train.max_steps=null", "train.seed=0", "optimizer.lr_scheduler=constant", "output=runs/benchmarks/grpo"],
]
Run = dict[str, Any]
Prepared = tuple[TrainRecipe, BaseModel, CausalLMModule, TaleDataModule]


def main() -> None:
    own, words = options({"rounds": "3", "steps": "2", "sizes": "4,8,16"})
    measured = lambda side, size: child(__file__, side, own["steps"], *words, f"train.micro_batch_size={size}")  # noqa: E731
    sizes = own["sizes"].split(",")
    tried = {side: {size: measured(side, size) for size in tqdm(sizes, desc=side)} for side in SIDES}
    chosen = choose(tried)
    runs: dict[str, list[Run]] = {side: [] for side in SIDES}
    for _ in tqdm(range(int(own["rounds"])), desc="rounds"):
        for side in SIDES:
            runs[side].append(measured(side, chosen[side]))
    report = {"arguments": sys.argv[1:], "micro-batch, answers": chosen, **figures(runs)}
    print(publish("grpo_speed", report | {"micro-batches": overview(tried)}))


def figures(runs: dict[str, list[Run]]) -> dict[str, Any]:
    """What came of the rounds."""
    every = lambda side, name: [value for run in runs[side] for value in run[name]]  # noqa: E731
    step = {side: median(every(side, "seconds")) for side in SIDES}
    tokens = {side: sum(every(side, "tokens")) / sum(every(side, "seconds")) for side in SIDES}
    memory = {side: max(run["peak_gb"] for run in of) for side, of in runs.items()}
    return {
        "seconds a step": {side: round(seconds, 2) for side, seconds in step.items()},
        "steps an hour": {side: round(3600 / seconds, 1) for side, seconds in step.items()},
        "times faster": round(step["trl"] / step["tale"], 2),
        "sampled tokens a step": {side: round(median(every(side, "tokens"))) for side in SIDES},
        "sampled and trained tokens a second": {side: round(rate, 1) for side, rate in tokens.items()},
        "times the tokens a second": round(tokens["tale"] / tokens["trl"], 2),
        "share of our step spent sampling": round(median(every("tale", "sampling")), 3),
        "peak GB": memory,
        "times the memory": round(memory["tale"] / memory["trl"], 2),
        "mean reward": {side: round(sum(every(side, "reward")) / len(every(side, "reward")), 3) for side in SIDES},
    }


def prepared(words: Sequence[str]) -> Prepared:
    """In a measurement's process: the recipe, its module with the initial adapter, and its questions."""
    limit_memory()
    recipe = load(TrainRecipe, [*RECIPE, *words])
    check_grpo(recipe)
    base = resolve(recipe.model)
    data = TaleDataModule(recipe, base.chat(), questions_to_ask(recipe, base)[0])
    data.setup()
    torch.manual_seed(0)
    return recipe, base, build_module(recipe, base.load(), base.name), data


def ours(
    recipe: TrainRecipe, base: BaseModel, module: CausalLMModule, data: TaleDataModule, steps: int
) -> Iterator[Run]:
    """Each step of this code."""
    remove(Path(recipe.output))
    fabric = Fabric(accelerator="cpu", devices=1, precision=recipe.fabric.precision)
    model, optimizer = fabric.setup(module, module.configure_optimizers())
    policy = LivePolicy(module, base, data.chat, recipe.engine)
    batches = Rollouts(fabric, recipe, data, policy, {"benchmark": "grpo_speed"}).train_dataloader()
    for _ in range(steps):
        began = time.perf_counter()
        micro_batches = next(batches)
        sampled = time.perf_counter()
        metrics = train_step(fabric, model, optimizer, micro_batches, recipe.optimizer.max_grad_norm)
        seconds = time.perf_counter() - began
        tokens = metrics["answer_tokens"] * recipe.train.global_batch_size
        share = (sampled - began) / seconds
        yield {"seconds": seconds, "tokens": tokens, "reward": metrics["reward"], "sampling": share}


def theirs(
    recipe: TrainRecipe, base: BaseModel, module: CausalLMModule, data: TaleDataModule, steps: int
) -> Iterator[Run]:
    """Each step of TRL's trainer."""
    import trl  # installed for this comparison alone

    module.base.set_attn_implementation("sdpa")
    config, clock, counted = recipe.grpo, Clock(), list[Run]()
    chosen = [data.questions[i] for step in islice(data.sampler(), steps) for i in step]
    asked = [prompt_of(config, question, None) for question in chosen]

    def rewards(completions: list, completion_ids: list[list[int]], number: list[int], **_: Any) -> list[float]:
        texts = [completion[0]["content"] for completion in completions]
        found = graded(config, data, [chosen[n] for n in number], texts, completion_ids)
        counted.append({"tokens": sum(map(len, completion_ids)), "reward": sum(found) / len(found)})
        return found

    common = {k: v for k, v in settings(recipe, steps).items() if k not in ("max_length", "train_sampling_strategy")}
    trainer = trl.GRPOTrainer(
        module.model,
        reward_funcs=rewards,
        args=trl.GRPOConfig(
            **common,
            num_generations=config.num_generations,
            max_completion_length=config.max_completion_length,
            temperature=config.temperature,
            loss_type="dr_grpo",
            scale_rewards=config.scale_rewards,
            beta=0.0,
            shuffle_dataset=False,
        ),
        train_dataset=Dataset.from_list(
            [{"prompt": [{"role": "user", "content": text}], "number": i} for i, text in enumerate(asked)]
        ),
        processing_class=data.chat.tokenizer,
        callbacks=[clock],
    )
    trainer.train()
    for seconds, of in zip(clock.seconds, counted, strict=True):
        yield {"seconds": seconds, **of}


def graded(
    config: GRPOConfig,
    data: TaleDataModule,
    questions: Sequence[Question],
    texts: Sequence[str],
    ids: Sequence[Sequence[int]],
) -> list[float]:
    """This code's rewards of answers, which come in whole groups."""
    answers = [
        outcome(Completion(text, len(of), "stop" if of[-1] == data.chat.end_id else "length", 0), question, None)
        for question, text, of in zip(questions, texts, ids, strict=True)
    ]
    size = config.num_generations
    groups = [answers[i : i + size] for i in range(0, len(answers), size)]
    return [reward for group in groups for reward in total_rewards(group, config, "TRL's answers")[0]]


def one_side(side: str, steps: str, *words: str) -> None:
    """Train a few steps and print their figures."""
    made, train = prepared(words), ours if side == "tale" else theirs
    print(json.dumps(measure(lambda: train(*made, int(steps) + 1))))


if __name__ == "__main__":
    is_side = sys.argv[1:2] == ["--side"]
    if is_side and sys.argv[2] == "trl":  # as a script of TRL's user runs it: with the allocator as it is
        one_side(*sys.argv[2:])
    else:
        guarded(lambda: one_side(*sys.argv[2:]) if is_side else main(), __doc__)
