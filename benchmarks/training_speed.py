"""A training step of this code against TRL's trainers, in one run.

    pip install -c constraints.txt -e '.[peers]'
    python benchmarks/training_speed.py 'data.records=[runs/gsm8k_zero/search/records.jsonl]'
    python benchmarks/training_speed.py … rounds=3 steps=4 cases=sft,dpo,dpo_reference sizes=1,4,16

Fair, because both sides train the same model in the same type with LoRA on the same modules from the same initial
adapter, on the same token ids in the same order, 16 examples a step, with torch's AdamW at a constant rate, gradients
clipped alike. TRL computes what it must and no more: gradient checkpointing off, no evaluation, no saving. Each
measurement is a process of its own, so that its peak memory is its own too, and its first step does not count. First
TRL runs once at each of `sizes` as its micro-batch; its fastest then alternates with this code for `rounds` rounds,
whose medians count.

`sft` is the token mean on both sides. `dpo` is the paper's loss here and DPOTrainer's own there, which needs a
reference; `dpo_reference` is that standard loss on both sides, the reference being the model without its adapter.

Prints seconds a step, examples a second, peak memory, the ratios, and how far apart the losses are; writes them to
runs/benchmarks.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from statistics import median
from typing import Any

import torch
from datasets import Dataset
from lightning import Fabric
from report import publish
from tqdm import tqdm

from tale.cli import guarded
from tale.config import TrainRecipe
from tale.data.datamodule import TaleDataModule
from tale.data.examples import Example, micro_batches
from tale.models.base import resolve
from tale.models.modules import CausalLMModule
from tale.recipes import load
from tale.training.loop import train_step
from tale.training.run import build

CASES = {
    "sft": ["recipe=gsm8k_zero/sft_smollm2", "loss.mean=token"],
    "dpo": ["recipe=gsm8k_zero/dpo_smollm2"],
    "dpo_reference": ["recipe=gsm8k_zero/dpo_smollm2", "loss.reference=true", "loss.beta=0.1"],
}
COMMON = ["model.dtype=float32", "fabric.precision=32-true", "lora.dropout=0", "data.validation=0", "train.seed=0"]


def main() -> None:
    own = {"rounds": "3", "steps": "4", "cases": "sft,dpo,dpo_reference", "sizes": "1,4,16"}
    own |= dict(word.split("=", 1) for word in sys.argv[1:] if word.split("=")[0] in own)
    words = [word for word in sys.argv[1:] if word.split("=")[0] not in own]
    report: dict[str, Any] = {"steps": int(own["steps"]), "rounds": int(own["rounds"])}
    for case in own["cases"].split(","):
        report[case] = compare(case, own["sizes"].split(","), int(own["rounds"]), own["steps"], words)
    print(publish("training_speed", report))


def compare(case: str, sizes: list[str], rounds: int, steps: str, words: list[str]) -> dict[str, Any]:
    """TRL's fastest micro-batch against ours, in alternating rounds."""
    tried = {size: child("trl", case, size, steps, words) for size in tqdm(sizes, desc=f"{case}: TRL")}
    fastest = min(tried, key=lambda size: median(tried[size]["seconds"]))
    runs: dict[str, list[dict[str, Any]]] = {"tale": [], "trl": []}
    for _ in tqdm(range(rounds), desc=f"{case}: rounds"):
        for side, size in (("tale", "4"), ("trl", fastest)):
            runs[side].append(child(side, case, size, steps, words))
    step = {side: median(s for run in of for s in run["seconds"]) for side, of in runs.items()}
    memory = {side: max(run["peak_gb"] for run in of) for side, of in runs.items()}
    losses = [runs[side][0]["losses"] for side in ("tale", "trl")]
    return {
        "seconds a step": {side: round(seconds, 2) for side, seconds in step.items()},
        "examples a second": {side: round(16 / seconds, 3) for side, seconds in step.items()},
        "times faster": round(step["trl"] / step["tale"], 2),
        "peak GB": memory,
        "TRL's micro-batches: seconds a step, peak GB": {
            size: [round(median(run["seconds"]), 2), run["peak_gb"]] for size, run in tried.items()
        },
        "TRL's fastest micro-batch": fastest,
        "losses: tale, TRL": losses,
        "largest difference of losses": max(abs(a - b) for a, b in zip(*losses, strict=True)),
    }


def child(side: str, case: str, size: str, steps: str, words: list[str]) -> dict[str, Any]:
    """Run one side in a process of its own."""
    command = [sys.executable, __file__, "--side", side, case, size, steps, *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{side} failed, see above: {' '.join(command)}")
    return json.loads(done.stdout.splitlines()[-1])


def one_side(side: str, case: str, size: str, steps: str, *words: str) -> None:
    """Train a few steps and print seconds, losses and peak memory."""
    recipe = load(TrainRecipe, [*CASES[case], *COMMON, f"train.micro_batch={size}", "output=runs/benchmarks", *words])
    base = resolve(recipe.model)
    data = TaleDataModule(recipe, base.chat())
    data.setup()
    torch.manual_seed(0)
    module = build(recipe, base.load(), base.name)
    count = int(steps) + 1
    train = ours if side == "tale" else theirs
    seconds, losses = zip(*train(recipe, module, data, count), strict=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds[1:], "losses": losses, "peak_gb": round(peak, 2)}))


def in_order(data: TaleDataModule, steps: int) -> list[list[Example]]:
    """The examples of the first steps."""
    sampler = data.train_dataloader().batch_sampler
    return [[data.train[i] for i in step] for step in islice(sampler, steps)]


def ours(
    recipe: TrainRecipe, module: CausalLMModule, data: TaleDataModule, steps: int
) -> Iterator[tuple[float, float]]:
    """Seconds and loss of each step of this code."""
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    model, optimizer = fabric.setup(module, module.configure_optimizers())
    for examples in in_order(data, steps):
        began = time.perf_counter()
        batches = micro_batches(examples, recipe.train.micro_batch)
        metrics = train_step(fabric, model, optimizer, batches, recipe.optim.clip)
        yield time.perf_counter() - began, metrics["loss"]


def theirs(
    recipe: TrainRecipe, module: CausalLMModule, data: TaleDataModule, steps: int
) -> Iterator[tuple[float, float]]:
    """Seconds and loss of each step of TRL's trainer."""
    import trl
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.began, self.seconds = 0.0, []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds.append(time.perf_counter() - self.began)

    kind = "SFT" if case_is_sft(recipe) else "DPO"
    examples = [example for step in in_order(data, steps) for example in step]
    settings = getattr(trl, f"{kind}Config")(
        output_dir="runs/benchmarks/trl",
        per_device_train_batch_size=recipe.train.micro_batch,
        gradient_accumulation_steps=16 // recipe.train.micro_batch,
        max_steps=steps,
        learning_rate=recipe.optim.lr,
        weight_decay=recipe.optim.weight_decay,
        lr_scheduler_type="constant",
        optim="adamw_torch",
        max_grad_norm=recipe.optim.clip,
        train_sampling_strategy="sequential",
        gradient_checkpointing=False,
        use_cpu=True,
        bf16=False,
        max_length=None,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        **({} if kind == "SFT" else {"beta": 0.1}),
    )
    model = module.model
    model.get_base_model().set_attn_implementation("sdpa")
    trainer_class = getattr(trl, f"{kind}Trainer")
    trainer_class._prepare_dataset = lambda self, dataset, *_, **__: dataset  # it has token ids already
    clock = Clock()
    trainer = trainer_class(
        model,
        args=settings,
        train_dataset=Dataset.from_list([columns(example) for example in examples]),
        processing_class=data.chat.tokenizer,
        callbacks=[clock],
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    yield from zip(clock.seconds, losses, strict=True)


def case_is_sft(recipe: TrainRecipe) -> bool:
    return recipe.objective.value == "sft"


def columns(example: Example) -> dict[str, list[int]]:
    """An example as TRL's collators want it."""
    if len(example.answers) == 1:
        (answer,) = example.answers
        return {"input_ids": example.prompt + answer, "labels": [-100] * len(example.prompt) + answer}
    chosen, rejected = example.answers
    return {"prompt_ids": example.prompt, "chosen_ids": chosen, "rejected_ids": rejected}


if __name__ == "__main__":
    guarded(lambda: one_side(*sys.argv[2:]) if sys.argv[1:2] == ["--side"] else main())
