"""The recipe of a training."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tale.config.fields import Recipe, budget_line_option, opt, section, seed_option
from tale.config.sections import DevicesConfig, EngineConfig, ModelConfig, TaskConfig


class Objective(Enum):
    sft = "sft"
    dpo = "dpo"
    grpo = "grpo"


SEARCHED = ("sft", "dpo")  # objectives that train on a search's records


@dataclass
class DataConfig:
    records: list[str] = opt("records.jsonl files of searches", [], objectives=SEARCHED)
    min_confirmed: float = opt(
        "smallest share of right confirming answers (the search's confirm_samples) with which a target is used; other "
        "targets are left out as lucky",
        0.0,
        ge=0,
        le=1,
        renamed_from="confirmed",
        objectives=SEARCHED,
    )
    limit: int | None = opt(
        "targets sampled at random, validation included; default: all",
        None,
        ge=1,
        renamed_from="count",
        objectives=SEARCHED,
    )
    max_length: int = opt(
        "most tokens of an example, prompt and answer together (grpo: prompt and grpo.max_completion_length); longer "
        "ones are left out and counted",
        1024,
        ge=1,
    )
    val_fraction: float = opt("share of contexts held out for validation", 0.1, ge=0, lt=1, renamed_from="validation")
    seed: int = seed_option("seed of the validation split", 0)


REDUCTIONS = ("example", "token")


@dataclass
class LossConfig:
    reduction: str = opt(
        "sft: mean over 'example's of their summed loss (the paper), or mean over 'token's",
        "example",
        choices=REDUCTIONS,
        renamed_from="mean",
        objectives=("sft",),
    )
    use_ref_model: bool = opt(
        "dpo: subtract the base model's margin, as standard DPO does; the paper does not",
        False,
        renamed_from="reference",
        objectives=("dpo",),
    )
    beta: float = opt("dpo: factor on the margin; 1 in the paper's loss", 1.0, gt=0, objectives=("dpo",))
    length_normalized: bool = opt(
        "score an answer by the mean of its tokens' log-probabilities, not by their sum",
        False,
        renamed_from="length_normalised",
        objectives=SEARCHED,
    )


REWARD_FUNCS = ("correct", "format", "lcpo_exact", "lcpo_max", "group_relative", "linear", "soft_overlong")


@dataclass
class GRPOConfig:
    num_generations: int = opt("answers sampled to each question, its group", 8, ge=2)
    max_completion_length: int = opt("most tokens of an answer; a constant in the loss's denominator", 256, ge=1)
    temperature: float = opt("temperature of sampling; the log-probabilities trained on are at it, too", 1.0, ge=0.01)
    reward_funcs: list[str] = opt(
        f"rewards whose weighted sum is an answer's: {', '.join(REWARD_FUNCS)}; lcpo_exact, lcpo_max and linear "
        "contain correctness",
        ["correct"],
        choices=REWARD_FUNCS,
    )
    reward_weights: list[float] = opt("weight of each of reward_funcs; default: 1", [], ge=0)
    length_penalty: float = opt("lcpo_exact, lcpo_max: reward per token off the budget, α of L1", 3e-4, gt=0)
    linear_penalty: float = opt("linear: reward lost by a group's longest answer, c of prime-rl", 0.25, gt=0)
    soft_punish_cache: int = opt("soft_overlong: tokens before max_completion_length over which it falls", 64, ge=1)
    scale_rewards: str = opt(
        "none: an advantage is the reward minus its group's mean (Dr. GRPO); group: divided by the group's spread, too",
        "none",
        choices=("none", "group"),
    )
    num_iterations: int = opt("optimizer steps on the same answers, μ; above 1 the ratio is clipped", 1, ge=1)
    epsilon: float = opt("clipping of the ratio of policies with num_iterations above 1", 0.2, gt=0, lt=1)
    beta: float = opt("weight of the KL divergence to the model without its adapter", 0.0, ge=0)
    importance_sampling_clip_max: float | None = opt(
        "weight every token by the ratio of training to sampling policy, at most this; default: no weights", None, gt=0
    )
    mask_truncated_completions: bool = opt("cut-off answers have no advantage; they stay in the denominator", False)
    budget_range: list[int] = opt(
        "[least, most] tokens of the budget that a prompt states, drawn for each prompt; default: no budget in it",
        [],
        ge=1,
    )
    budget_line: str | None = budget_line_option()
    eval_length: int | None = opt(
        "tokens within which a held-out answer must be right to count in accuracy_at_length; default: its prompt's "
        "budget, else max_completion_length",
        None,
        ge=1,
    )
    log_completions_steps: int = opt("optimizer steps between samples of answers as text in TensorBoard", 10, ge=1)


@dataclass
class QuestionsConfig(TaskConfig):
    name: str = opt("benchmark of the questions, as in a search", "")


@dataclass
class LoraConfig:
    r: int = opt("rank of the adapters (A.3: 8)", 8, ge=1, renamed_from="rank")
    lora_alpha: int = opt("LoRA alpha: adapters are scaled by lora_alpha / r (A.3: 32)", 32, ge=1, renamed_from="alpha")
    lora_dropout: float = opt("dropout on the adapters' inputs", 0.05, ge=0, lt=1, renamed_from="dropout")
    target_modules: list[str] = opt("names of the linear layers to adapt", ["q_proj", "v_proj"], renamed_from="modules")
    init_from: str | None = opt(
        "folder of an adapter of the same shape to continue from; default: a new adapter", None, renamed_from="start"
    )


@dataclass
class OptimizerConfig:
    lr: float = opt("peak learning rate (A.3: 1e-4 SFT, 3e-5 DPO)", 1e-4, gt=0)
    weight_decay: float = opt("weight decay of the adapters (A.3: 0.01 SFT, 0.001 DPO)", 0.01, ge=0)
    warmup_ratio: float = opt("share of the steps with linear warm-up", 0.03, ge=0, le=1, renamed_from="warmup")
    lr_scheduler: str = opt(
        "learning rate after the warm-up: cosine, linear or constant",
        "cosine",
        choices=("cosine", "linear", "constant"),
        renamed_from="decay",
    )
    max_grad_norm: float = opt("largest norm of the gradient", 1.0, gt=0, renamed_from="clip")
    name: str = opt(
        "optimizer: adamw, or with 8-bit state: adamw_8bit, paged_adamw_8bit (CUDA only)",
        "adamw",
        choices=("adamw", "adamw_8bit", "paged_adamw_8bit"),
        renamed_from="kind",
    )


@dataclass
class TrainConfig:
    epochs: int = opt("passes over the examples (A.3: 3 SFT, 2 DPO)", 3, ge=1)
    global_batch_size: int = opt(
        "examples (grpo: answers, whole groups) per optimizer step, over all devices and accumulation (A.3: 16)",
        16,
        ge=1,
        renamed_from="batch_size",
    )
    micro_batch_size: int = opt(
        "examples (grpo: answers) per forward pass on one device", 4, ge=1, renamed_from="micro_batch"
    )
    max_steps: int | None = opt("most optimizer steps; default: all of the epochs", None, ge=1)
    eval_steps: int = opt("optimizer steps between validations", 20, ge=1, renamed_from="validate_every")
    save_steps: int = opt("optimizer steps between checkpoints", 20, ge=1, renamed_from="checkpoint_every")
    early_stopping_patience: int | None = opt(
        "end after so many validations in sequence without a better score: held-out loss, or grpo's held-out "
        "accuracy_at_length; default: train all steps",
        None,
        ge=1,
    )
    gradient_checkpointing: bool = opt("recompute activations to save memory", False)
    torch_compile: bool = opt(
        "compile the decoder layers (torch.compile); the first steps take minutes, later ones are faster",
        False,
        renamed_from="compile",
        objectives=SEARCHED,
    )
    seed: int = seed_option("seed of new adapters, data order and dropout", 0)


@dataclass
class FabricConfig(DevicesConfig):
    accelerator: str = opt("accelerator: auto, cpu, cuda, mps", "auto")
    strategy: str = opt(
        "auto (ddp on more than one device), ddp (weights replicated), fsdp2 (weights sharded over devices)",
        "auto",
        choices=("auto", "ddp", "fsdp2"),
    )
    precision: str = opt(
        "32-true, or bf16-mixed (adapters stay fp32); auto: by model.dtype",
        "auto",
        choices=("auto", "32-true", "bf16-mixed"),
    )


@dataclass
class TrainRecipe(Recipe):
    """Train LoRA adapters: SFT or pairwise DPO on searched targets (§5.3), or GRPO by rewards for length."""

    output: str = opt("run folder; its name is the run's name in TensorBoard")
    objective: Objective = opt("training objective: sft, dpo or grpo")
    model: ModelConfig = section(ModelConfig)
    data: DataConfig = section(DataConfig)
    task: QuestionsConfig = section(QuestionsConfig, objectives=("grpo",))
    loss: LossConfig = section(LossConfig)
    grpo: GRPOConfig = section(GRPOConfig, objectives=("grpo",))
    engine: EngineConfig = section(EngineConfig, objectives=("grpo",))
    lora: LoraConfig = section(LoraConfig)
    optimizer: OptimizerConfig = section(OptimizerConfig, renamed_from="optim")
    train: TrainConfig = section(TrainConfig)
    fabric: FabricConfig = section(FabricConfig)
    resume: str | None = opt("auto: resume from the run's latest checkpoint, if any", None, choices=("auto", None))
    plan: bool = opt("print how much memory training needs on each device, and do not train", False)
    plan_device: str = opt(
        "device whose memory the plan must fit: this machine, RTX4090, A100-80GB, H100-80GB, …, or a size as 24GB",
        "this machine",
    )
