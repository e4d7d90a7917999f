"""The training loop, on Lightning Fabric, for every objective; read it top to bottom.

A step's loss is the sum over all of its micro-batches on all devices, divided once by the global batch's denominator.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning import Fabric
from lightning.fabric.wrappers import _FabricModule, _FabricOptimizer
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from tale.config.training import OptimizerConfig, TrainRecipe
from tale.data.examples import Batch
from tale.models.modules import CausalLMModule
from tale.output.progress import progress
from tale.runs.devices import all_reduce
from tale.storage.files import explain_write_errors
from tale.training import checkpoint
from tale.training.sharding import full_tensor
from tale.training.throughput import Throughput

# Metrics that are sums over the devices, not means.
TOKENS = ("tokens", "target_tokens", "rollout_prompt_tokens", "rollout_completion_tokens")


class Batches(Protocol):
    """Where the loop pulls its batches from: searched targets (`TaleDataModule`), or `tale.training.rollouts`."""

    def total_steps(self, world_size: int = 1) -> int:
        """The optimizer steps of all epochs."""
        ...

    def train_dataloader(self, first_step: int = 0, rank: int = 0, world_size: int = 1) -> Iterable[list[Batch]]:
        """A rank's micro-batches of each step, of the policy as it is when they are asked for."""
        ...

    def validation_batches(self, rank: int = 0, world_size: int = 1, step: int = 0) -> list[Batch]:
        """A rank's held-out batches, after so many steps."""
        ...


class NonFiniteLossError(RuntimeError):
    """The loss or its gradient is NaN or infinite; the message names the examples of the step."""


def fit(
    fabric: Fabric,
    recipe: TrainRecipe,
    module: CausalLMModule,
    data: Batches,
    identity: dict[str, str],
    start: Path | None = None,
) -> None:
    """Train `module` on `data`, resuming from the checkpoint `start` if given.

    Metrics of step k are computed before update k, so step 0 shows the untrained adapter. With
    `train.early_stopping_patience` the run ends after so many validations without a better score; its adapter is that
    of the last step.
    """
    folder, t, first = Path(recipe.output) / "checkpoints", recipe.train, checkpoint.step_of(start)
    ranks = fabric.global_rank, fabric.world_size
    total = data.total_steps(fabric.world_size)
    total = min(total, t.max_steps) if t.max_steps else total
    model = fabric.setup_module(module)  # before the optimizer: FSDP2 replaces the parameters by shards
    optimizer: Any = fabric.setup_optimizers(module.configure_optimizers())
    scheduler = LambdaLR(optimizer, lambda step: learning_rate_factor(step, total, recipe.optimizer))
    state = module, optimizer.optimizer, scheduler
    scores = checkpoint.load(start, *state) if start else []

    def validated(done: int) -> list[float]:
        metrics = validate(fabric, model, data.validation_batches(*ranks, done))
        _log(fabric, folder.parent, _named("val", metrics), step=done)
        return [module.score(metrics)] if metrics else []

    # Also in a resumed run, for which TensorBoard hides what was logged at its first step and later.
    before = validated(first)
    scores = scores if start else before
    loader = data.train_dataloader(first, *ranks) if not _stale(scores, t.early_stopping_patience) else ()
    name, shown = Path(recipe.output).name, fabric.is_global_zero
    bar = progress(name, total=total, initial=first, unit="step", disable=not shown)
    throughput = Throughput(fabric, recipe, module)
    for step, micro_batches in zip(range(first, total), throughput.loading(loader), strict=False):
        began = time.perf_counter()
        # Dropout depends only on (seed, step, rank): a resumed run has the same as an uninterrupted one.
        torch.manual_seed((t.seed * 1_000_003 + step) * 4_099 + fabric.global_rank)
        metrics = train_step(
            fabric, model, optimizer, [b.to(fabric.device) for b in micro_batches], recipe.optimizer.max_grad_norm
        )
        metrics["lr"] = float(scheduler.get_last_lr()[0])
        tokens, targets = metrics["tokens"], metrics.pop("target_tokens")
        metrics |= throughput.step(micro_batches, tokens, targets, time.perf_counter() - began)
        scheduler.step()
        _log(fabric, folder.parent, _named("train", metrics), step=step)
        if step == 0:
            report_start(fabric, metrics)
        if metrics.get("groups_without_spread") == 1:
            fabric.print(f"warning: step {step}: the rewards of every group are equal, so no answer has an advantage")
        bar.set_postfix(loss=f"{metrics['loss']:.3f}", refresh=False)
        bar.update()
        done = step + 1
        if done % t.eval_steps == 0 or done == total:
            scores += validated(done)
        stop = _stale(scores, t.early_stopping_patience)
        if done % t.save_steps == 0 or done == total or stop:
            checkpoint.save(fabric, folder, done, identity, *state, scores)
        if stop:
            fabric.print(f"ended after step {done}: {t.early_stopping_patience} validations without a better score")
            break
    bar.close()
    fabric.print(throughput.summary())


def _log(fabric: Fabric, folder: Path, metrics: dict[str, float], step: int) -> None:
    with explain_write_errors(folder):
        try:
            fabric.log_dict(metrics, step=step)
        except ValueError as error:  # Lightning wraps all errors of a logger
            raise error.__cause__ or error from None


def train_step(
    fabric: Fabric, model: _FabricModule, optimizer: _FabricOptimizer, micro_batches: list[Batch], max_grad_norm: float
) -> dict[str, float]:
    """One optimizer step over the global batch; returns its mean metrics, over all devices.

    Raises:
        NonFiniteLossError: on every rank, before the update.
    """
    model.train()
    own = sum(model.loss_denominator(batch) for batch in micro_batches)
    (denominator,) = all_reduce(fabric, [own])
    steps: list[dict[str, Tensor]] = []
    rounds = _rounds(fabric, micro_batches)
    for i, (batch, counts) in enumerate(rounds):
        with fabric.no_backward_sync(model, enabled=i < len(rounds) - 1):
            step = model.training_step(batch)
            # DDP and FSDP2 average gradients over the ranks; the loss is a sum over them.
            fabric.backward(step["loss"] * (counts * fabric.world_size / denominator))
        if counts:
            steps.append({name: value.detach() for name, value in step.items()})
    # Read only here, as reading a value waits for the device.
    sums = _summed(steps)
    for batch in micro_batches:
        sums.update(batch.sums)
    sums["denominator"] = own
    sums["examples"] += sum(batch.examples for batch in micro_batches)
    sums["tokens"] += sum(batch.tokens for batch in micro_batches)
    sums["target_tokens"] += sum(batch.target_tokens for batch in micro_batches)
    norm = full_tensor(fabric.clip_gradients(model, optimizer, max_norm=max_grad_norm, error_if_nonfinite=False))
    metrics = _means(fabric, sums, model.divisors)
    if not (math.isfinite(metrics["loss"]) and torch.isfinite(norm)):
        ids = ", ".join(example for batch in micro_batches for example in batch.ids)
        raise NonFiniteLossError(f"loss {metrics['loss']}, gradient norm {float(norm)}, on the examples: {ids}")
    optimizer.step()
    optimizer.zero_grad()
    return {**metrics, "grad_norm": float(norm)}


@torch.no_grad()
def validate(fabric: Fabric, model: _FabricModule, batches: list[Batch]) -> dict[str, float]:
    """The mean metrics over the validation examples; empty without any."""
    model.eval()
    steps: list[dict[str, Tensor]] = []
    for batch, counts in _rounds(fabric, batches):
        step = model.validation_step(batch.to(fabric.device))
        if counts:
            steps.append(step)
    sums = _summed(steps)
    for batch in batches:
        sums.update(batch.sums)
    sums["denominator"] = sum(model.loss_denominator(batch) for batch in batches)
    sums["examples"] += sum(batch.examples for batch in batches)
    return _means(fabric, sums, model.divisors) if all_reduce(fabric, [len(batches)])[0] else {}


def learning_rate_factor(step: int, total: int, config: OptimizerConfig) -> float:
    """Linear warm-up to 1, then cosine or linear decay to 0, or constant."""
    warmup = math.ceil(config.warmup_ratio * total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    left = 1 - (step - warmup) / max(1, total - warmup)
    return {"cosine": 0.5 * (1 - math.cos(math.pi * left)), "linear": left, "constant": 1.0}[config.lr_scheduler]


def report_start(fabric: Fabric, metrics: dict[str, float]) -> None:
    """Print the first step's metrics, before any update; warn if the paper's DPO loss is saturated from the start.

    As that loss sums log-probabilities, the untrained model may already prefer a much shorter answer.
    """
    fabric.print("step 0: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    if metrics.get("saturated", 0) > 0.5:
        fabric.print(
            f"warning: {metrics['saturated']:.0%} of the first step's pairs have a margin above 10 nats before any "
            "update: the loss starts saturated. loss.length_normalized=true or loss.use_ref_model=true compare answers "
            "of different length fairly."
        )


def _means(fabric: Fabric, sums: Counter[str], divisors: Mapping[str, str]) -> dict[str, float]:
    """Means over all ranks, of sums with the same names on each: over examples, or over the sum that `divisors` names.

    A metric whose divisor is 0 is left out. Numbers of tokens stay sums.
    """
    names = sorted(sums)
    totals = dict(zip(names, all_reduce(fabric, [sums[name] for name in names]), strict=True))
    tokens = {name: totals[name] for name in TOKENS if name in totals}
    by = {name: divisors.get(name, "examples") for name in totals.keys() - {"examples", *divisors.values(), *tokens}}
    return {name: totals[name] / totals[of] for name, of in sorted(by.items()) if totals[of]} | tokens


def _rounds(fabric: Fabric, batches: list[Batch]) -> list[tuple[Batch, bool]]:
    """Each batch with True, then the last one repeated with False until all ranks have the same number of rounds.

    Under FSDP2 a forward or backward needs all ranks at once, as each holds shards of the weights.
    """
    rounds = int(all_reduce(fabric, [len(batches)], "max")[0])
    return [(batch, True) for batch in batches] + [(batch, False) for batch in batches[-1:]] * (rounds - len(batches))


def _summed(steps: list[dict[str, Tensor]]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for step in steps:
        sums.update({name: float(value) for name, value in step.items()})
    return sums


def _stale(scores: Sequence[float], patience: int | None) -> bool:
    """Whether the best score is followed by `patience` others."""
    return bool(scores) and patience is not None and len(scores) - scores.index(max(scores)) > patience


def _named(prefix: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in metrics.items()}
