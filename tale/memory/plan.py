"""The memory plan of a recipe: what each device stores, and whether it fits. Needs no data, weights or network."""

from __future__ import annotations

import math
import os
import resource
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table
from torch import nn
from transformers import PreTrainedConfig

from tale.config.training import Objective, TrainRecipe
from tale.errors import UserError
from tale.hardware.devices import GB, Device, device_named, peak_memory
from tale.memory.measure import PROMPT, MicroBatchMemory, measure
from tale.memory.rollout import rollout_bytes
from tale.models.architectures import read_architecture
from tale.models.attention import fused_attention_only
from tale.models.probe import verify_training
from tale.output.tables import Terminal
from tale.text import printable
from tale.training.run import check, train

CUDA_CONTEXT = GB // 2  # assumed: driver, kernels and the libraries' workspaces


@dataclass(frozen=True)
class MemoryItem:
    """A part of the memory, in bytes, with its meaning."""

    part: str
    bytes: int
    meaning: str


@dataclass(frozen=True)
class Plan:
    """One device's memory under a recipe."""

    measured: MicroBatchMemory
    device: Device
    lines: list[MemoryItem]
    assumed: str

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return sum(line.bytes for line in self.lines)

    @property
    def fits(self) -> bool:
        """Whether the device has enough memory."""
        return self.total <= self.device.memory


def plan(recipe: TrainRecipe, architecture: PreTrainedConfig | None = None) -> Plan:
    """Plan one device's memory at the peak of an optimizer step; `architecture` defaults to that of the recipe's model.

    Raises:
        UserError: no such device, more devices than examples in a step, or a model of unknown architecture.
    """
    architecture = architecture or read_architecture(recipe.model)
    grpo = recipe.objective is Objective.grpo
    local, shared = _local_devices(recipe), recipe.train.global_batch_size
    groups = shared // recipe.grpo.num_generations if grpo else shared
    devices = local * recipe.fabric.num_nodes
    device = device_named(recipe.plan_device, recipe.fabric.accelerator, local)
    if groups < devices:
        what = "questions" if grpo else "examples"
        raise UserError(f"train.global_batch_size={shared}: {devices} devices, but a step has only {groups} {what}")
    micro_batch = min(recipe.train.micro_batch_size, math.ceil(shared / devices))
    process = (
        MemoryItem("process", CUDA_CONTEXT, "CUDA context, assumed")
        if device.gpu
        else MemoryItem("process", _process(), "interpreter and libraries, measured now")
    )
    with fused_attention_only() if device.gpu else nullcontext():
        measured = measure(recipe, architecture, micro_batch)
    lines = [*_lines(recipe, measured, devices), *_rollout(recipe, architecture, measured, devices, device), process]
    return Plan(measured, device, lines, _assumed(recipe, micro_batch, devices))


def _rollout(
    recipe: TrainRecipe, architecture: PreTrainedConfig, m: MicroBatchMemory, devices: int, device: Device
) -> list[MemoryItem]:
    """What sampling answers takes beyond a micro-batch, whose memory is free meanwhile."""
    if recipe.objective is not Objective.grpo:
        return []
    if recipe.engine.kind == "vllm":
        return [MemoryItem("rollout", 0, "vLLM's is its own, by engine.vllm.gpu_memory_utilization: not planned")]
    needed = rollout_bytes(recipe, architecture, devices, device.gpu)
    beyond = max(0, needed - m.activations - m.logits - m.temporary)
    return [MemoryItem("rollout", beyond, f"keys, values, logits: {needed / GB:,.3f} GB, beyond the three above")]


def _lines(recipe: TrainRecipe, m: MicroBatchMemory, devices: int) -> list[MemoryItem]:
    """The parts that the strategy stores on each device, and those of a step."""
    sharded = recipe.fabric.strategy == "fsdp2" and devices > 1
    parts = devices if sharded else 1
    share = f", 1/{parts} of it" if sharded else ""
    weights = "4-bit NF4, the rest " if recipe.model.quantization else ""
    added = []
    if sharded:
        added = [
            MemoryItem("gathered", m.rest + 3 * m.layer, "embeddings and head; 3 layers: previous, current and next")
        ]
    elif devices > 1:
        added = [MemoryItem("buckets", m.gradients, "gradients' copies that DDP sums over devices")]
    return [
        MemoryItem("weights", m.weights // parts, f"frozen, {weights}{recipe.model.dtype.value}{share}"),
        MemoryItem("adapters", m.adapters // parts, f"trained{share}"),
        MemoryItem("optimizer", m.optimizer // parts, f"{recipe.optimizer.name}{share}"),
        MemoryItem("gradients", m.gradients // parts, f"of the adapters{share}"),
        *added,
        MemoryItem("activations", m.activations, "kept for the backward pass, at the peak"),
        MemoryItem("logits", m.logits, "the head's, at the peak"),
        MemoryItem("temporary", m.temporary, "everything else, at the peak"),
    ]


def _assumed(recipe: TrainRecipe, micro_batch: int, devices: int) -> str:
    pairs, grpo = recipe.objective is Objective.dpo, recipe.objective is Objective.grpo
    longest = recipe.data.max_length
    prompt = longest - recipe.grpo.max_completion_length if grpo else min(PROMPT, longest // 2)
    checkpointing = "on" if recipe.train.gradient_checkpointing else "off"
    what = ("pair" if pairs else "answer" if grpo else "example") + ("s" if micro_batch > 1 else "")
    return (
        f"{devices} device{'s' if devices > 1 else ''}, strategy {recipe.fabric.strategy}, "
        f"gradient checkpointing {checkpointing}\n"
        f"micro-batch: {micro_batch} {what} of the largest length: "
        f"prompt {prompt:,} tokens, {'each ' if pairs else ''}answer {longest - prompt:,}"
    )


def plan_or_train(recipe: TrainRecipe) -> None:
    """Train, or with the key `plan` print the memory plan.

    Raises:
        UserError: as `show_plan`, or as `train`.
    """
    (show_plan if recipe.plan else train)(recipe)


def show_plan(recipe: TrainRecipe) -> None:
    """Print the plan as a table, and whether it fits.

    Raises:
        UserError: as `plan`, or training does not know the architecture.
    """
    check(recipe)
    architecture = read_architecture(recipe.model)
    verify_training(architecture, recipe.lora, recipe.data.max_length)
    made = plan(recipe, architecture)
    console = Terminal(highlight=False, markup=False, emoji=False)
    table = Table("part", "GB", "what", title_justify="left")
    table.title = printable(f"memory of one device: {Path(recipe.output).name}")
    table.columns[1].justify = "right"
    for line in made.lines:
        table.add_row(line.part, f"{line.bytes / GB:,.3f}", line.meaning)
    table.add_section()
    table.add_row("total", f"{made.total / GB:,.3f}", "at the peak of a step")
    console.print(f"parameters: {made.measured.frozen:,} frozen, {made.measured.trained:,} trained\n{made.assumed}")
    console.print(table)
    console.print(verdict(made, recipe), soft_wrap=True)
    if not made.device.gpu and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        console.print(
            "on a CPU glibc keeps freed blocks, which is faster but can take as much memory again as activations and "
            "logits; MALLOC_MMAP_THRESHOLD_=131072 in the environment returns them",
            soft_wrap=True,
        )


def verdict(made: Plan, recipe: TrainRecipe) -> str:
    """One line: whether it fits, and if not, which options that the recipe does not have would reduce it."""
    left = made.device.memory - made.total
    of = f"{made.device.name} ({made.device.memory / GB:,.1f} GB)"
    if made.fits:
        return f"fits {of}: {left / GB:,.1f} GB are left ({left / made.device.memory:.0%})"
    quantised, sharded = recipe.model.quantization is not None, recipe.fabric.strategy == "fsdp2"
    options = {
        "train.micro_batch_size=1": recipe.train.micro_batch_size > 1,
        "train.gradient_checkpointing=true": not recipe.train.gradient_checkpointing,
        "model.quantization=nf4": not quantised and not sharded,
        "fabric.strategy=fsdp2 on several devices": not quantised and not sharded,
        "a smaller engine.batch_size": any(line.part == "rollout" and line.bytes for line in made.lines),
        "a smaller data.max_length": True,
    }
    less = ", ".join(option for option, helps in options.items() if helps)
    return f"does not fit {of}: {-left / GB:,.1f} GB too much; to reduce it: {less}"


def _local_devices(recipe: TrainRecipe) -> int:
    text = recipe.fabric.devices
    if text in ("auto", "-1"):
        return max(1, torch.cuda.device_count())
    if not text.isdigit() or not int(text):
        raise UserError(f"fabric.devices={text}: the plan needs a number of devices, or auto")
    return int(text)


def _process() -> int:
    """Resident bytes of this process, after a toy training step that loads what a first step loads."""
    toy = nn.TransformerEncoderLayer(64, 4, 64, batch_first=True)
    optimizer = torch.optim.AdamW(toy.parameters())
    toy(torch.zeros(2, 64, 64)).sum().backward()
    optimizer.step()
    resident = Path("/proc/self/statm")
    if resident.is_file():
        return int(resident.read_text().split()[1]) * resource.getpagesize()
    return peak_memory(torch.device("cpu"))
