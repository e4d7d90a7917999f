"""Training steps on this device: speed, memory against the plan, strategies, a kill, and TRL."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from gpu_models import LARGE, SMALL, Cases, Size, config_of, data_of, device, random_examples, random_module, recipe_of
from tokenizers import Tokenizer, models
from torch import Tensor
from training_steps import apart, measure, ours
from transformers import PreTrainedTokenizerFast
from trl_steps import theirs

from tale.config.training import TrainRecipe
from tale.data.datamodule import TaleDataModule
from tale.data.examples import Batch
from tale.errors import UserError
from tale.hardware.devices import GB
from tale.memory.measure import largest_examples
from tale.memory.plan import plan
from tale.runs.devices import launch
from tale.storage.files import remove
from tale.training import checkpoint
from tale.training.loop import fit
from tale.training.run import training_fabric

CHECKPOINTING = "train.gradient_checkpointing=true"
COMPILED = "train.torch_compile=true"
NF4 = ["model.quantization=nf4", "train.micro_batch_size=1"]
QLORA = [*NF4, CHECKPOINTING]
PAGED = "optimizer.name=paged_adamw_8bit"
FOLDER = Path("runs/gpu_proof/resumed")
STEPS, KILLED = 4, 2  # optimizer steps, and those before the kill


# --- Steps of the large model ---------------------------------------------------------------------------------------


def bf16(size: Size) -> Cases:
    """The shipped recipes' micro-batches: at the longest lengths, which the plan is for, and at drawn ones."""
    yield "sft", partial(steps, size, "sft")
    yield "dpo", partial(steps, size, "dpo")
    yield "sft, drawn lengths", partial(steps, size, "sft", drawn=True)
    yield "dpo, drawn lengths", partial(steps, size, "dpo", drawn=True)
    yield "sft, gradient checkpointing", partial(steps, size, "sft", CHECKPOINTING)
    yield "sft, compiled", partial(steps, size, "sft", COMPILED)


def qlora(size: Size) -> Cases:
    """The recipes' command for one small GPU, the paged optimizer with and without it, and what checkpointing costs."""
    yield "sft, nf4", partial(steps, size, "sft", *QLORA)
    yield "dpo, nf4", partial(steps, size, "dpo", *QLORA)
    yield "sft, nf4, paged AdamW", partial(steps, size, "sft", *QLORA, PAGED)
    yield "sft, bf16, paged AdamW", partial(steps, size, "sft", PAGED)
    yield "sft, nf4, no checkpointing", partial(steps, size, "sft", *NF4)
    yield "sft, nf4, compiled", partial(steps, size, "sft", *NF4, COMPILED)


def steps(size: Size, objective: str, *words: str, drawn: bool = False) -> dict[str, Any]:
    """A few optimizer steps of the 8B shape. The plan is without its line for the process, which no allocator sees.

    Raises:
        UserError: the recipe needs a GPU.
    """
    recipe, config = recipe_of(size, objective, LARGE, *words), config_of(size, LARGE)
    training_fabric(recipe)  # checks the device
    count = recipe.train.global_batch_size
    examples = random_examples(size, recipe, config.vocab_size, count) if drawn else largest_examples(recipe, count)
    planned = sum(line.bytes for line in plan(recipe, config).lines if line.part != "process") / GB
    figures = measured(recipe, lambda: ours(*prepared(recipe, size, LARGE, examples), size.steps + 1))
    figures["plan, GB"] = planned
    if device().type == "cuda" and not drawn:
        figures["error of the plan"] = planned / figures["peak, GB"] - 1
    return figures


def prepared(recipe: TrainRecipe, size: Size, architecture: str, examples: list) -> tuple:
    """A recipe with its module on random weights, and its data."""
    return recipe, random_module(recipe, config_of(size, architecture), device()), data_of(recipe, examples)


def measured(recipe: TrainRecipe, run: Callable[[], Iterator[dict[str, float]]]) -> dict[str, Any]:
    """Medians of a few steps. A CPU's peak is the whole process's, of all cases so far, and so not given.

    Raises:
        UserError: there is too little memory.
    """
    gpu = device().type == "cuda"
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    told = measure(run, device())
    if told is None:
        raise UserError("too little memory")
    rates = {"tokens a second": "tokens_per_second", "model FLOP utilisation": "share_of_peak"}
    return {
        "examples a second": recipe.train.global_batch_size / median(told["seconds"]),
        **{name: median(told[key]) for name, key in rates.items() if key in told},
        **({"peak, GB": told["peak_gb"], "reserved, GB": torch.cuda.max_memory_reserved() / GB} if gpu else {}),
        "losses": told["loss"],
    }


# --- Strategies -----------------------------------------------------------------------------------------------------


def strategies(size: Size) -> Cases:
    """One process under each strategy, in a process group over NCCL (on a CPU: gloo)."""

    @cache
    def losses(strategy: str) -> list[float]:
        recipe = recipe_of(
            size, "sft", SMALL, f"fabric.strategy={strategy}", "lora.lora_dropout=0", "optimizer.lr=1e-3"
        )
        config = config_of(size, SMALL)
        examples = random_examples(size, recipe, config.vocab_size, recipe.train.global_batch_size)
        try:
            return [step["loss"] for step in ours(*prepared(recipe, size, SMALL, examples), STEPS)]
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()

    def compared(strategy: str) -> dict[str, Any]:
        found, alone = losses(strategy), losses("auto")
        return {"losses": found, "a loss differs by": apart(found, alone)}

    for strategy in ("auto", "ddp", "fsdp2"):
        yield strategy, partial(compared, strategy)


# --- Kill and resume ------------------------------------------------------------------------------------------------


def resume(size: Size) -> Cases:
    """A run is killed as it asks for a step's batches, and resumes from its checkpoint; beside it the same run twice.

    On a GPU a gradient's sums have no fixed order, so that equal runs may differ.
    """
    yield "killed and resumed", partial(resumed, size)


def resumed(size: Size) -> dict[str, Any]:
    """How far the adapters are from those of an uninterrupted run."""
    code = in_another_process(trained, size, FOLDER / "killed", KILLED)
    step = checkpoint.step_of(checkpoint.latest(FOLDER / "killed" / "checkpoints"))
    if code != -signal.SIGKILL or step != KILLED:
        raise RuntimeError(f"the run ended with {code} after step {step}, not by a kill after {KILLED}")
    whole, again = (trained(size, FOLDER / name) for name in ("whole", "again"))
    found = trained(size, FOLDER / "killed", resumes=True)
    return {
        "killed after step": step,
        "of": STEPS,
        "resumed: an adapter differs by": furthest(found, whole),
        "the same run twice: an adapter differs by": furthest(again, whole),
    }


def furthest(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference of the adapters' numbers, as a share of the largest number."""
    largest = max(float(tensor.abs().max()) for tensor in expected.values())
    return max(float((found[name] - tensor).abs().max()) for name, tensor in expected.items()) / largest


def in_another_process(function: Callable[..., Any], *arguments: Any) -> int | None:
    """Call a function in a new process; its exit code."""
    process = torch.multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    return process.exitcode


class KilledData(TaleDataModule):
    """Kills its process instead of giving the batches of step `kill`."""

    kill: int | None = None

    def train_dataloader(self, first_step: int = 0, *ranks: int) -> Iterator[list[Batch]]:
        for step, batches in enumerate(super().train_dataloader(first_step, *ranks), first_step):
            if step == self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batches


def trained(size: Size, folder: Path, kill: int | None = None, resumes: bool = False) -> dict[str, Tensor]:
    """Train the 1B shape for a few steps, with a checkpoint after each; the adapters."""
    if not resumes:
        remove(folder)
    words = [f"output={folder}", f"train.max_steps={STEPS}", "train.save_steps=1", "optimizer.lr=1e-3"]
    recipe, config = recipe_of(size, "sft", SMALL, *words), config_of(size, SMALL)
    fabric = training_fabric(recipe)
    launch(fabric)
    fabric.seed_everything(recipe.train.seed, verbose=False)
    examples = random_examples(size, recipe, config.vocab_size, 2 * recipe.train.global_batch_size)
    _, module, data = prepared(recipe, size, SMALL, examples)
    batches = KilledData(recipe, data.chat)
    batches.train, batches.kill = data.train, kill
    identity = checkpoint.fingerprint(recipe, {"name": SMALL, "weights": "random"}, data, fabric.world_size)
    start = checkpoint.latest(folder / "checkpoints")
    if start:
        checkpoint.check(start, identity)
    fit(fabric, recipe, module, batches, identity, start)
    return checkpoint.trained_state_dict(module)


# --- TRL ------------------------------------------------------------------------------------------------------------


def trl(size: Size) -> Cases:
    """SFT of the 1B shape by both, the same examples in the same micro-batches, in bfloat16."""
    yield "sft", partial(beside_trl, size)


def beside_trl(size: Size) -> dict[str, Any]:
    """Examples a second and memory of both sides, and the ratios.

    Raises:
        UserError: TRL is not installed.
    """
    if not find_spec("trl"):
        raise UserError("TRL is not installed")
    accelerator = "cuda" if device().type == "cuda" else "cpu"
    words = ["lora.lora_dropout=0", "loss.reduction=token", f"fabric.accelerator={accelerator}"]
    recipe, config = recipe_of(size, "sft", SMALL, *words), config_of(size, SMALL)
    count = recipe.train.global_batch_size * (size.steps + 1)
    examples = random_examples(size, recipe, config.vocab_size, count)
    found = {}
    for side, train in {"tale": ours, "trl": theirs}.items():
        made = prepared(recipe, size, SMALL, examples)
        made[-1].chat.tokenizer = one_word_tokenizer()
        found[side] = measured(recipe, lambda train=train, made=made: train(*made, size.steps + 1))
        del made
    keys = [key for key in ("examples a second", "peak, GB") if key in found["tale"]]
    return {
        **{f"{side}: {key}": of[key] for side, of in found.items() for key in keys},
        **{f"{key}, tale / trl": found["tale"][key] / found["trl"][key] for key in keys},
        "a loss differs by": apart(found["tale"]["losses"], found["trl"]["losses"]),
    }


def one_word_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer for a trainer that gets token ids."""
    made = Tokenizer(models.WordLevel({"end": 0}, unk_token="end"))
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="end", pad_token="end", unk_token="end")
