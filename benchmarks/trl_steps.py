"""The same training steps by TRL's trainers, from the same module and examples as this code's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from datasets import Dataset
from training_steps import in_order
from transformers import TrainerCallback

from tale.config.training import Objective, TrainRecipe
from tale.data.datamodule import TaleDataModule
from tale.data.examples import Example
from tale.models.modules import CausalLMModule


def theirs(
    recipe: TrainRecipe, module: CausalLMModule, data: TaleDataModule, steps: int, **more: Any
) -> Iterator[dict[str, float]]:
    """Seconds and loss of each step of TRL's trainer; `more` of its settings."""
    import trl  # installed for this comparison alone

    kind = "SFT" if recipe.objective is Objective.sft else "DPO"
    module.model.get_base_model().set_attn_implementation("sdpa")
    trainer_class = getattr(trl, f"{kind}Trainer")
    trainer_class._prepare_dataset = lambda self, dataset, *_, **__: dataset  # it has token ids already
    clock = Clock()
    trainer = trainer_class(
        module.model,
        args=getattr(trl, f"{kind}Config")(
            **settings(recipe, steps), **({"beta": recipe.loss.beta} if recipe.loss.use_ref_model else {}), **more
        ),
        train_dataset=Dataset.from_list([columns(example) for step in in_order(data, steps) for example in step]),
        processing_class=data.chat.tokenizer,
        callbacks=[clock],
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    for seconds, loss in zip(clock.seconds, losses, strict=True):
        yield {"seconds": seconds, "loss": loss}


class Clock(TrainerCallback):
    """Notes how long each step takes."""

    def __init__(self) -> None:
        self.began, self.seconds = 0.0, []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.perf_counter() - self.began)


def settings(recipe: TrainRecipe, steps: int) -> dict[str, Any]:
    """The recipe in the words of a trainer of TRL's, without anything that only costs time or memory."""
    return {
        "output_dir": "runs/benchmarks/trl",
        "per_device_train_batch_size": recipe.train.micro_batch_size,
        "gradient_accumulation_steps": recipe.train.global_batch_size // recipe.train.micro_batch_size,
        "max_steps": steps,
        "learning_rate": recipe.optimizer.lr,
        "weight_decay": recipe.optimizer.weight_decay,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch",
        "max_grad_norm": recipe.optimizer.max_grad_norm,
        "train_sampling_strategy": "sequential",
        "gradient_checkpointing": False,
        "use_cpu": recipe.fabric.accelerator == "cpu",
        "bf16": recipe.fabric.precision == "bf16-mixed",
        "max_length": None,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }


def columns(example: Example) -> dict[str, list[int]]:
    """An example as TRL's collators want it."""
    if len(example.answers) == 1:
        (answer,) = example.answers
        return {"input_ids": example.prompt + answer, "labels": [-100] * len(example.prompt) + answer}
    chosen, rejected = example.answers
    return {"prompt_ids": example.prompt, "chosen_ids": chosen, "rejected_ids": rejected}
