"""The memory of one micro-batch: the recipe's module runs its `training_step` and backward with fake tensors.

So the count follows the code. All numbers are for one unsharded device; `tale.memory.plan` applies the strategy.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from bitsandbytes.functional import quantize_4bit
from lightning import Fabric
from torch import Tensor, nn
from transformers import PreTrainedConfig

from tale.config.training import Objective, TrainRecipe
from tale.data.examples import Batch, Example, micro_batches
from tale.memory.allocations import Allocation, AllocationLog
from tale.memory.fake import fake_execution
from tale.models.architectures import empty_model, materialize
from tale.models.modules import CausalLMModule, build_module

PROMPT = 64  # tokens; the paper's vanilla prompt with a question and a chat template has at least as many


KINDS = ("weights", "adapters", "gradients", "activations", "logits", "temporary")


@dataclass(frozen=True)
class MicroBatchMemory:
    """Numbers of parameters, and bytes of the whole model and at the peak of one micro-batch.

    `layer` and `rest` are the bytes of the largest decoder layer, and of everything outside decoder layers.
    """

    frozen: int
    trained: int
    optimizer: int
    weights: int
    adapters: int
    gradients: int
    activations: int
    logits: int
    temporary: int
    layer: int
    rest: int


def largest_examples(recipe: TrainRecipe, count: int) -> list[Example]:
    """The worst case: examples of `data.max_length` tokens, without a shared prefix, mostly answer.

    For GRPO `count` answers of the longest kind in whole groups, or in one part of a group.
    """
    if recipe.objective is Objective.grpo:
        return _largest_groups(recipe, count)
    prompt = min(PROMPT, recipe.data.max_length // 2)
    answer = [0] * (recipe.data.max_length - prompt)
    sides = 2 if recipe.objective is Objective.dpo else 1
    return [Example(str(i), [i] * prompt, (answer,) * sides) for i in range(count)]


def _largest_groups(recipe: TrainRecipe, count: int) -> list[Example]:
    length, whole = recipe.grpo.max_completion_length, recipe.grpo.num_generations
    size = math.ceil(whole / math.ceil(whole / count))  # answers of a part, as `Example.split` has them
    each = {
        "answers": ([0] * length,) * size,
        "size": size,
        "advantages": (1.0,) * size,
        "logprobs": ((0.0,) * length,) * size,
    }
    prompt = recipe.data.max_length - length
    return [Example(str(i), [i] * prompt, **each) for i in range(max(1, count // size))]  # type: ignore[arg-type]


def measure(recipe: TrainRecipe, architecture: PreTrainedConfig, micro_batch: int) -> MicroBatchMemory:
    """Build the recipe's module and run one micro-batch of the largest examples, with fake tensors.

    Gradients of an earlier micro-batch exist, as in all but the first of a step.
    """
    quantize_4bit(torch.zeros(64, 64), quant_type="nf4", compress_statistics=True)  # creates its tables as real tensors
    with torch.device("meta"):
        base = empty_model(architecture, getattr(torch, recipe.model.dtype.value), recipe.model.quantization)
        module = build_module(recipe, base, "")
    frozen, trained = ([p for p in module.parameters() if p.requires_grad is on] for on in (False, True))
    counts = sum(p.numel() for p in frozen), sum(p.numel() for p in trained)
    optimizer = sum(optimizer_bytes(recipe.optimizer.name, p.numel()) for p in trained)
    (batch,) = micro_batches(largest_examples(recipe, micro_batch), micro_batch)
    fabric = Fabric(accelerator="cpu", devices=1, precision=recipe.fabric.precision)  # type: ignore[arg-type]
    with fake_execution() as ledger:
        materialize(module, lambda _: None)
        ledger.label((t for t in stored_tensors(module) if t.requires_grad), "adapters")
        ledger.label((t for t in stored_tensors(module) if not t.requires_grad), "weights")
        kinds = micro_step(fabric, module, batch, ledger, architecture.vocab_size)
    of_layers = [
        sum(t.nbytes for t in stored_tensors(layer))
        for layer in module.modules()
        if type(layer).__name__ in (base._no_split_modules or ())
    ]
    rest = sum(t.nbytes for t in stored_tensors(module)) - sum(of_layers)
    return MicroBatchMemory(
        *counts, optimizer, **{name: kinds[name] for name in KINDS}, layer=max(of_layers, default=0), rest=rest
    )


def micro_step(
    fabric: Fabric, module: CausalLMModule, batch: Batch, ledger: AllocationLog, vocabulary: int
) -> Counter[str]:
    """Run `training_step` and backward under a log of allocations, with real or fake tensors; peak bytes by kind."""
    model = fabric.setup_module(module, move_to_device=False)
    model.train()
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    ledger.label((p.grad for p in module.parameters() if p.grad is not None), "gradients")
    first = ledger.now
    loss = model.training_step(batch)["loss"]
    forward = ledger.now
    fabric.backward(loss)
    at = ledger.peak(first)
    kinds: Counter[str] = Counter()
    for entry in ledger.held(at):
        kinds[entry.kind or _kind(entry, forward, vocabulary)] += entry.bytes
    return kinds


def stored_tensors(module: nn.Module) -> Iterator[Tensor]:
    """Every parameter and buffer once, and the quantisation state of 4-bit ones."""
    for parameter in module.parameters():
        yield parameter
        if state := getattr(parameter, "quant_state", None):
            yield from (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)
    yield from module.buffers()


def optimizer_bytes(kind: str, size: int) -> int:
    """Bytes of AdamW's state: two float32 per number; in 8 bits two bytes, and two float32 per block of 256.

    bitsandbytes keeps tensors of fewer than 4,096 numbers in float32.
    """
    return 8 * size if kind == "adamw" or size < 4096 else 2 * size + 8 * math.ceil(size / 256)


def _kind(entry: Allocation, forward: int, vocabulary: int) -> str:
    """The kind of an unlabelled tensor: logits by its width, else activations if it survives the forward pass."""
    if entry.floating and entry.width == vocabulary:
        return "logits"
    return "activations" if entry.alive(forward) else "temporary"
