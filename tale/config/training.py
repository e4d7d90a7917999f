"""What a recipe of a training may say."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tale.config.fields import Recipe, group, opt, seed_of
from tale.config.sections import DevicesConfig, ModelConfig


class Objective(Enum):
    sft = "sft"
    dpo = "dpo"


@dataclass
class DataConfig:
    records: list[str] = opt("records.jsonl files that searches wrote", [])
    min_confirmed: float = opt(
        "least share right of the answers when a target was asked again (the search's confirm_samples); others are "
        "left out as lucky",
        0.0,
        least=0,
        most=1,
        was="confirmed",
    )
    limit: int | None = opt("targets drawn at random, validation included; default: all", None, least=1, was="count")
    max_length: int = opt(
        "longest example, prompt and answer, in tokens; longer ones are left out and counted", 1024, least=1
    )
    val_fraction: float = opt(
        "share of contexts held out for the validation loss", 0.1, least=0, below=1, was="validation"
    )
    seed: int = seed_of("seed of the validation split", 0)


MEANS = ("example", "token")


@dataclass
class LossConfig:
    reduction: str = opt(
        "sft: sum over tokens, mean over 'example's (the paper) or over 'token's", "example", one_of=MEANS, was="mean"
    )
    use_ref_model: bool = opt(
        "dpo: subtract the base model's margin, as standard DPO does; the paper does not", False, was="reference"
    )
    beta: float = opt("dpo: factor on the margin; the paper's loss is 1", 1.0, above=0)
    length_normalized: bool = opt(
        "score an answer by its tokens' mean log-probability, not by the sum", False, was="length_normalised"
    )


@dataclass
class LoraConfig:
    r: int = opt("rank of the adapters (A.3: 8)", 8, least=1, was="rank")
    lora_alpha: int = opt("scale of the adapters, divided by r (A.3: 32)", 32, least=1, was="alpha")
    lora_dropout: float = opt("dropout on what enters the adapters", 0.05, least=0, below=1, was="dropout")
    target_modules: list[str] = opt("names of the adapted linear layers", ["q_proj", "v_proj"], was="modules")
    init_from: str | None = opt(
        "adapter folder of the same shape to start from, in place of a fresh adapter", None, was="start"
    )


@dataclass
class OptimizerConfig:
    lr: float = opt("peak learning rate (A.3: 1e-4 SFT, 3e-5 DPO)", 1e-4, above=0)
    weight_decay: float = opt("weight decay of the adapters (A.3: 0.01 SFT, 0.001 DPO)", 0.01, least=0)
    warmup_ratio: float = opt(
        "share of the steps over which the rate rises linearly", 0.03, least=0, most=1, was="warmup"
    )
    lr_scheduler: str = opt(
        "learning rate after the warm-up: cosine, linear or constant",
        "cosine",
        one_of=("cosine", "linear", "constant"),
        was="decay",
    )
    max_grad_norm: float = opt("largest norm of the gradient", 1.0, above=0, was="clip")
    name: str = opt(
        "adamw, or with its state in 8 bits: adamw_8bit, paged_adamw_8bit (CUDA alone)",
        "adamw",
        one_of=("adamw", "adamw_8bit", "paged_adamw_8bit"),
        was="kind",
    )


@dataclass
class TrainConfig:
    epochs: int = opt("passes over the examples (A.3: 3 SFT, 2 DPO)", 3, least=1)
    global_batch_size: int = opt(
        "examples an optimizer step, over all devices and accumulation (A.3: 16)", 16, least=1, was="batch_size"
    )
    micro_batch_size: int = opt("examples a forward pass on one device", 4, least=1, was="micro_batch")
    max_steps: int | None = opt("most optimizer steps; default: all of the epochs", None, least=1)
    eval_steps: int = opt("optimizer steps between validations", 20, least=1, was="validate_every")
    save_steps: int = opt("optimizer steps between checkpoints", 20, least=1, was="checkpoint_every")
    gradient_checkpointing: bool = opt("recompute activations to save memory", False)
    torch_compile: bool = opt(
        "compile the decoder layers (torch.compile); the first steps take minutes, the others less",
        False,
        was="compile",
    )
    seed: int = seed_of("seed of fresh adapters, data order and dropout", 0)


@dataclass
class FabricConfig(DevicesConfig):
    accelerator: str = opt("auto, cpu, cuda, mps", "auto")
    strategy: str = opt(
        "auto (ddp on more than one device), ddp (each has all weights), fsdp2 (each has a share of every weight)",
        "auto",
        one_of=("auto", "ddp", "fsdp2"),
    )
    precision: str = opt(
        "32-true, or bf16-mixed (adapters stay fp32); auto: as model.dtype",
        "auto",
        one_of=("auto", "32-true", "bf16-mixed"),
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
    optimizer: OptimizerConfig = group(OptimizerConfig, was="optim")
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
