"""The memory of one micro-batch: the recipe's own module runs its own `training_step` and backward, without memory.

So what is counted follows the code, whatever it becomes. Each number is of one device that holds everything; what a
strategy divides or adds is in `tale.memory.plan`.
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
from tale.memory.fake import pretended
from tale.memory.ledger import Entry, Ledger
from tale.models.architectures import empty_model, fill
from tale.models.modules import CausalLMModule, build

PROMPT = 64  # tokens; the paper's vanilla prompt with a question and a chat template is no shorter


KINDS = ("weights", "adapters", "gradients", "activations", "logits", "temporary")


@dataclass(frozen=True)
class Measured:
    """Parameters, counted, and bytes: of the whole model, and at the peak of one micro-batch.

    `layer` and `rest` are the bytes of the largest decoder layer, and of all that is in none.
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
    """The worst case: every example of `data.max_length` tokens, nothing shared, and nearly all of it answer."""
    prompt = min(PROMPT, recipe.data.max_length // 2)
    answer = [0] * (recipe.data.max_length - prompt)
    sides = 2 if recipe.objective is Objective.dpo else 1
    return [Example(str(i), [i] * prompt, (answer,) * sides) for i in range(count)]


def measure(recipe: TrainRecipe, architecture: PreTrainedConfig, micro_batch: int) -> Measured:
    """Build the recipe's module and run one micro-batch of the largest examples, all of it fake.

    Gradients from an earlier micro-batch are there, as in all but the first of a step.
    """
    quantize_4bit(torch.zeros(64, 64), quant_type="nf4", compress_statistics=True)  # its tables are made for real
    with torch.device("meta"):
        base = empty_model(architecture, getattr(torch, recipe.model.dtype.value), recipe.model.quantization)
        module = build(recipe, base, "")
    frozen, trained = ([p for p in module.parameters() if p.requires_grad is on] for on in (False, True))
    counts = sum(p.numel() for p in frozen), sum(p.numel() for p in trained)
    optimizer = sum(optimizer_bytes(recipe.optimizer.name, p.numel()) for p in trained)
    (batch,) = micro_batches(largest_examples(recipe, micro_batch), micro_batch)
    fabric = Fabric(accelerator="cpu", devices=1, precision=recipe.fabric.precision)  # type: ignore[arg-type]
    with pretended() as ledger:
        fill(module, lambda _: None)
        ledger.label((t for t in stored(module) if t.requires_grad), "adapters")
        ledger.label((t for t in stored(module) if not t.requires_grad), "weights")
        kinds = micro_step(fabric, module, batch, ledger, architecture.vocab_size)
    of_layers = [
        sum(t.nbytes for t in stored(layer))
        for layer in module.modules()
        if type(layer).__name__ in (base._no_split_modules or ())
    ]
    rest = sum(t.nbytes for t in stored(module)) - sum(of_layers)
    return Measured(
        *counts, optimizer, **{name: kinds[name] for name in KINDS}, layer=max(of_layers, default=0), rest=rest
    )


def micro_step(fabric: Fabric, module: CausalLMModule, batch: Batch, ledger: Ledger, vocabulary: int) -> Counter[str]:
    """Run `training_step` and backward under a ledger; bytes at the peak, by kind. Real or fake tensors alike."""
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


def stored(module: nn.Module) -> Iterator[Tensor]:
    """Every parameter and buffer once, and what a 4-bit one keeps beside its packed weights."""
    for parameter in module.parameters():
        yield parameter
        if state := getattr(parameter, "quant_state", None):
            yield from (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)
    yield from module.buffers()


def optimizer_bytes(kind: str, size: int) -> int:
    """AdamW keeps two float32 a number; in 8 bits two bytes, and two float32 for each block of 256.

    bitsandbytes leaves tensors of fewer than 4,096 numbers in float32.
    """
    return 8 * size if kind == "adamw" or size < 4096 else 2 * size + 8 * math.ceil(size / 256)


def _kind(entry: Entry, forward: int, vocabulary: int) -> str:
    """What a tensor is that nobody labelled: as wide as the vocabulary, kept for the backward pass, or passing."""
    if entry.floating and entry.width == vocabulary:
        return "logits"
    return "activations" if entry.alive(forward) else "temporary"
