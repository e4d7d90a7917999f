"""A few training steps, measured: what the benchmarks of training share.

Each measurement is a separate process, so that its peak memory is its own too: `child` starts a benchmark's file
again with `--side`, and that process prints what `measure` gives.
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from tale.config.recipes import load
from tale.config.training import TrainRecipe
from tale.data.datamodule import TaleDataModule
from tale.data.examples import Batch, Example, micro_batches
from tale.errors import UserError
from tale.hardware.devices import GB, peak_memory
from tale.models.base import resolve
from tale.models.modules import CausalLMModule, build_module
from tale.runs.devices import launch
from tale.training.loop import train_step
from tale.training.run import training_fabric
from tale.training.throughput import Throughput

CASES = {
    "sft": ["recipe=gsm8k_zero/sft_qwen", "loss.reduction=token"],
    "dpo": ["recipe=gsm8k_zero/dpo_qwen"],
    "dpo_reference": ["recipe=gsm8k_zero/dpo_qwen", "loss.use_ref_model=true", "loss.beta=0.1"],
}
NO_MEMORY = "no memory"  # in place of figures that the machine has not the memory for
# Epochs without end: a few examples are enough for any number of steps.
COMMON = [
    "model.dtype=float32",
    "fabric.precision=32-true",
    "fabric.accelerator=cpu",
    "lora.lora_dropout=0",
    "data.val_fraction=0",
    "train.seed=0",
    "train.epochs=1000",
    "output=runs/benchmarks",
]
RESULTS = ("loss", "margin")  # of a step, before its update
SPEED = ("tokens_per_second", "share_of_peak")
CPU = torch.device("cpu")
Prepared = tuple[TrainRecipe, CausalLMModule, TaleDataModule]


def child(script: str, *arguments: str) -> dict[str, Any] | None:
    """What `script --side …` prints, in a separate process; None if there was too little memory."""
    command = [sys.executable, script, "--side", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"failed, see above: {' '.join(command)}")
    return json.loads(done.stdout.splitlines()[-1])


def prepared(case: str, words: list[str]) -> Prepared:
    """In a measurement's process: a case's recipe, its module with the initial adapter, and its examples."""
    limit_memory()
    recipe = load(TrainRecipe, [*CASES[case], *COMMON, *words])
    base = resolve(recipe.model)
    data = TaleDataModule(recipe, base.chat())
    data.setup()
    if len(data.train) < recipe.train.global_batch_size:
        raise UserError(f"data.records: {len(data.train)} examples, a step has {recipe.train.global_batch_size}")
    torch.manual_seed(0)
    return recipe, build_module(recipe, base.load(), base.name), data


def in_order(data: TaleDataModule, steps: int) -> list[list[Example]]:
    """The examples of the first steps; an epoch's last one is passed over where it is smaller than the others."""
    size = data.recipe.train.global_batch_size
    full = (step for step in data.train_dataloader().batch_sampler if len(step) == size)
    return [[data.train[i] for i in step] for step in islice(full, steps)]


def ours(
    recipe: TrainRecipe,
    module: CausalLMModule,
    data: TaleDataModule,
    steps: int,
    deal: Callable[[list[Example], int], list[Batch]] = micro_batches,
) -> Iterator[dict[str, float]]:
    """Each step of this code: its seconds, tokens a second, the share of the device's peak, what came out."""
    fabric = training_fabric(recipe)
    launch(fabric)
    throughput = Throughput(fabric, recipe, module)
    model = fabric.setup_module(module)
    optimizer = fabric.setup_optimizers(module.configure_optimizers())
    for examples in in_order(data, steps):
        began = time.perf_counter()
        batches = [batch.to(fabric.device) for batch in deal(examples, recipe.train.micro_batch_size)]
        metrics = train_step(fabric, model, optimizer, batches, recipe.optimizer.max_grad_norm)
        seconds = time.perf_counter() - began
        rates = throughput.step(batches, metrics["tokens"], metrics["target_tokens"], seconds)
        speed = {name: rates[name] for name in SPEED if name in rates}  # the peak of some GPUs is not known
        yield {"seconds": seconds, **speed, **{name: metrics[name] for name in RESULTS if name in metrics}}


def measure(steps: Callable[[], Iterable[dict[str, float]]], device: torch.device = CPU) -> dict[str, Any] | None:
    """Results of all steps, times of all but the first, and the peak memory; None where there was not the memory."""
    try:
        first, *counted = steps()
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or re.search("allocate memory|bad_alloc|out of memory", str(error)):
            return None
        raise
    told = {name: [step[name] for step in ([first] if name in RESULTS else []) + counted] for name in first}
    return told | {"peak_gb": round(peak_memory(device) / GB, 2)}


def apart(values: Sequence[float], expected: Sequence[float]) -> float:
    """The largest difference."""
    return max(abs(a - b) for a, b in zip(values, expected, strict=True))


def limit_memory() -> None:
    """No more than is free now: an error in this process, where otherwise the kernel chooses what to end."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists() and (found := re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())):
        resource.setrlimit(resource.RLIMIT_DATA, (int(found[1]) * 1024,) * 2)
