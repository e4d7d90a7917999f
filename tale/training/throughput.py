"""Throughput of a training: tokens and FLOP per second, model FLOP utilisation, time waiting for data, peak memory.

FLOP are those that the gradient needs, not those that were run: padding, recomputed activations and unused logits do
not count. A product of T rows with a weight of n numbers is 2·n·T operations. Then, for T tokens of which K are
targets, over all layers:

- frozen linear layers: 2·n·T forward and 2·n·T backward, for the gradient of their inputs;
- adapters: 2·n·T forward and 4·n·T backward, for their own gradient too;
- the head, frozen, only at target positions: 2·n·K and 2·n·K;
- attention, QKᵀ and PV: 4·d·P forward and 8·d·P backward per layer, with d = heads × head size and P the pairs of a
  token with itself and earlier ones, T·(T+1)/2 for a row of T.

The first layer's inputs need no gradient, so the count is too high by less than 1 / layers. A reference model is one
more forward pass, without adapters.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from lightning import Fabric
from torch import nn

from tale.config.training import Objective, TrainRecipe
from tale.data.examples import Batch
from tale.hardware.devices import GB, peak_flops, peak_memory
from tale.models.modules import CausalLMModule
from tale.runs.devices import all_reduce

Item = TypeVar("Item")
# Metrics that vary between identical runs.
MEASURED = (
    "target_tokens_per_second",
    "tokens_per_second",
    "flops_per_second",
    "share_of_peak",
    "loading_share",
    "peak_memory_gb",
)


@dataclass(frozen=True)
class Work:
    """Sizes of a model's weights: frozen linear layers, adapters, head; `attention` is layers × heads × head size."""

    frozen: int
    adapters: int
    head: int
    attention: int

    @classmethod
    def of(cls, module: CausalLMModule) -> Work:
        """Count the model's linear layers, 4-bit ones by their shapes."""
        base = module.base
        head, text = base.get_output_embeddings(), base.config.get_text_config()
        layers = [m for m in base.modules() if isinstance(m, nn.Linear) and m is not head]
        sizes = {on: sum(_size(m) for m in layers if m.weight.requires_grad is on) for on in (True, False)}
        width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return cls(sizes[False], sizes[True], _size(head), text.num_hidden_layers * text.num_attention_heads * width)

    def flops(self, tokens: int, targets: int, pairs: int, use_ref_model: bool = False) -> int:
        """FLOP of a forward and a backward pass over these numbers of tokens, targets and attended pairs."""
        forward = 2 * self.frozen * tokens + 2 * self.head * targets + 4 * self.attention * pairs
        backward = 2 * self.frozen * tokens + 2 * self.head * targets + 8 * self.attention * pairs
        return forward * (1 + use_ref_model) + backward + 6 * self.adapters * tokens


class Throughput:
    """Measures a run's steps; figures are for all devices together, memory is this process's."""

    def __init__(self, fabric: Fabric, recipe: TrainRecipe, module: CausalLMModule):
        self.fabric, self.work = fabric, Work.of(module)
        dpo, grpo = (recipe.objective is kind for kind in (Objective.dpo, Objective.grpo))
        self.use_ref_model = (dpo and recipe.loss.use_ref_model) or (grpo and recipe.grpo.beta > 0)
        dtype = torch.bfloat16 if recipe.fabric.precision.startswith("bf16") else torch.float32
        peak = peak_flops(fabric.device, dtype)
        self.peak = peak * fabric.world_size if peak else None
        self.sums: Counter[str] = Counter()
        self.waited = 0.0

    def loading(self, steps: Iterable[Item]) -> Iterator[Item]:
        """Iterate over the items, and measure the wait for each."""
        iterator = iter(steps)
        while True:
            began = time.perf_counter()
            item = next(iterator, None)
            self.waited = time.perf_counter() - began
            if item is None:
                return
            yield item

    def step(self, micro_batches: list[Batch], tokens: float, targets: float, seconds: float) -> dict[str, float]:
        """The metrics of a step; `seconds` exclude the wait for data, tokens and targets are for all devices."""
        (flops,) = all_reduce(self.fabric, [sum(map(self._flops, micro_batches))])
        done = {"targets": targets, "tokens": tokens, "flops": flops, "seconds": seconds, "waited": self.waited}
        step: Counter[str] = Counter(done)
        self.sums.update(step)
        return self._metrics(step)

    def _flops(self, batch: Batch) -> int:
        return self.work.flops(batch.tokens, batch.target_tokens, attended_pairs(batch), self.use_ref_model)

    def summary(self) -> str:
        """One line for all steps."""
        if not self.sums:
            return "throughput: there was no step left"
        m = self._metrics(self.sums)
        share = f" ({m['share_of_peak']:.0%} of {self.peak / 1e12:.2f})" if self.peak else ""
        parts = [
            f"{m['target_tokens_per_second']:,.0f} target tokens/s",
            f"{m['tokens_per_second']:,.0f} tokens/s",
            f"{m['flops_per_second'] / 1e12:.3f} TFLOP/s{share}",
            f"{m['loading_share']:.1%} of the time waiting for data",
            f"peak memory {m['peak_memory_gb']:.2f} GB",
        ]
        return "throughput: " + ", ".join(parts)

    def _metrics(self, sums: Counter[str]) -> dict[str, float]:
        rate = sums["flops"] / sums["seconds"]
        return {
            "target_tokens_per_second": sums["targets"] / sums["seconds"],
            "tokens_per_second": sums["tokens"] / sums["seconds"],
            "flops_per_second": rate,
            **({"share_of_peak": rate / self.peak} if self.peak else {}),
            "loading_share": sums["waited"] / (sums["waited"] + sums["seconds"]),
            "peak_memory_gb": peak_memory(self.fabric.device) / GB,
        }


def attended_pairs(batch: Batch) -> int:
    """Pairs of each token with itself and earlier ones in its sequence; a shared prompt counts once."""
    return int((batch.position_ids + 1).sum())


def _size(linear: nn.Linear) -> int:
    return linear.in_features * linear.out_features
