"""What a recipe of a training may say."""

from __future__ import annotations

from dataclasses import dataclass

from tale.config.fields import Recipe, group, opt
from tale.config.sections import ModelConfig
from tale.config.training import (
    DataConfig,
    FabricConfig,
    LoraConfig,
    LossConfig,
    Objective,
    OptimConfig,
    TrainConfig,
)


@dataclass
class TrainRecipe(Recipe):
    """Train LoRA adapters on the searched targets: SFT, or pairwise DPO of target over vanilla answer (§5.3)."""

    output: str = opt("run folder; its name is the run's name in TensorBoard")
    objective: Objective = opt("sft or dpo")
    model: ModelConfig = group(ModelConfig)
    data: DataConfig = group(DataConfig)
    loss: LossConfig = group(LossConfig)
    lora: LoraConfig = group(LoraConfig)
    optim: OptimConfig = group(OptimConfig)
    train: TrainConfig = group(TrainConfig)
    fabric: FabricConfig = group(FabricConfig)
    resume: str | None = opt(
        "auto: resume from the newest checkpoint in the run folder, if there is one", None, one_of=("auto", None)
    )
    plan: bool = opt("say how much memory training takes on each device, and train nothing", False)
    plan_device: str = opt(
        "whose memory the plan has to fit: this machine, 24GB or any such size, RTX4090, A100-80GB, H100-80GB, …",
        "this machine",
    )
