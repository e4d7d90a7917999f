"""Checking a GRPO recipe, and its questions, before anything is loaded."""

from __future__ import annotations

from tale.config.training import GRPOConfig, QuestionsConfig, TrainRecipe
from tale.data.question import Question
from tale.errors import UserError
from tale.inference.build import check_engine
from tale.inference.vllm import check_installed
from tale.models.base import BaseModel
from tale.tasks.selection import metric_of, select_questions

BY_BUDGET = {"lcpo_exact", "lcpo_max"}


def check_grpo(recipe: TrainRecipe) -> None:
    """Refuse keys of a GRPO recipe that exclude each other, and those that it does not read.

    Raises:
        UserError: the first of them, with the remedy.
    """
    config, train = recipe.grpo, recipe.train
    group, each = config.num_generations, config.num_iterations
    refused = {
        "task.name: not given; objective=grpo samples answers to questions": not recipe.task.name,
        f"train.global_batch_size={train.global_batch_size}: counts answers, so it must be a multiple of "
        f"grpo.num_generations={group}": train.global_batch_size % group,
        f"data.max_length={recipe.data.max_length}: holds a prompt and an answer, so it must be above "
        f"grpo.max_completion_length={config.max_completion_length}": (
            recipe.data.max_length <= config.max_completion_length
        ),
        f"train.save_steps={train.save_steps}, train.max_steps={train.max_steps}: must be multiples of "
        f"grpo.num_iterations={each}, as a run resumes with new answers": (
            train.save_steps % each or (train.max_steps or 0) % each
        ),
        f"engine.kind={recipe.engine.kind}: an endpoint has no weights to train; transformers or vllm": (
            recipe.engine.kind == "openai"
        ),
        f"engine.device={recipe.engine.device}: answers are sampled on the training's device; leave "
        "it out": recipe.engine.device != "auto",
        "fabric.strategy=fsdp2: answers cannot be sampled from sharded weights; use ddp": (
            recipe.fabric.strategy == "fsdp2"
        ),
        f"engine.kind=vllm, fabric.devices={recipe.fabric.devices}: vLLM distributes its work itself, see "
        "engine.vllm.data_parallel_size; train on one device": (
            recipe.engine.kind == "vllm" and (recipe.fabric.devices, recipe.fabric.num_nodes) != ("1", 1)
        ),
        f"engine.kind=vllm, model.quantization={recipe.model.quantization}: vLLM samples from the weights before their "
        "quantisation, another policy than the one that trains; set grpo.importance_sampling_clip_max=2, for "
        "instance": (
            recipe.engine.kind == "vllm"
            and recipe.model.quantization is not None
            and each == 1
            and config.importance_sampling_clip_max is None
        ),
        **_refused_rewards(config),
    }
    for message, is_so in refused.items():
        if is_so:
            raise UserError(message)


def _refused_rewards(config: GRPOConfig) -> dict[str, bool]:
    """Messages about rewards and the options of the loss, each with whether it applies."""
    funcs, default = set(config.reward_funcs), GRPOConfig()
    read_with = {
        "length_penalty": bool(funcs & BY_BUDGET),
        "linear_penalty": "linear" in funcs,
        "soft_punish_cache": "soft_overlong" in funcs,
        "budget_line": bool(config.budget_range),
        "epsilon": config.num_iterations > 1,
    }
    unread = {
        f"grpo.{key}={getattr(config, key)}: is not read with these reward_funcs, budget_range and num_iterations; "
        "leave it out": not read and getattr(config, key) != getattr(default, key)
        for key, read in read_with.items()
    }
    weights, count = config.reward_weights, len(config.reward_funcs)
    most = config.max_completion_length
    return {
        f"grpo.reward_funcs={config.reward_funcs}: must be different names, at least one": not 0 < len(funcs) == count,
        f"grpo.reward_weights: {len(weights)} weights for {count} reward_funcs": len(weights) not in (0, count),
        f"grpo.reward_weights={weights}: every reward would be 0": bool(weights) and not any(weights),
        f"grpo.budget_range={config.budget_range}: must be [least, most]": bool(config.budget_range)
        and (len(config.budget_range) != 2 or config.budget_range != sorted(config.budget_range)),
        f"grpo.budget_range={config.budget_range}: an answer as long as its budget would be cut off at "
        f"grpo.max_completion_length={most}; raise that": max(config.budget_range, default=0) > most,
        f"grpo.soft_punish_cache={config.soft_punish_cache}: no answer would be short enough for soft_overlong; must "
        f"be at most grpo.max_completion_length={most}": ("soft_overlong" in funcs and config.soft_punish_cache > most),
        f"grpo.reward_funcs={config.reward_funcs}: need the budget of a prompt; set grpo.budget_range": bool(
            funcs & BY_BUDGET and not config.budget_range
        ),
        f"grpo.importance_sampling_clip_max={config.importance_sampling_clip_max}: with num_iterations above 1 "
        "the ratio to the sampling policy is clipped by epsilon already; leave it out": (
            config.num_iterations > 1 and config.importance_sampling_clip_max is not None
        ),
        **unread,
    }


def questions_to_ask(recipe: TrainRecipe, base: BaseModel) -> tuple[list[Question], int]:
    """The questions of the recipe's task, and how many duplicates were dropped.

    Raises:
        UserError: they have no right answer, the engine is not installed, or engine or context cannot serve them.
    """
    task: QuestionsConfig = recipe.task
    check_engine(recipe.engine, base)
    if recipe.engine.kind == "vllm":
        check_installed()  # before the weights to train are loaded
    if base.max_model_len is not None and recipe.data.max_length > base.max_model_len:
        raise UserError(f"data.max_length={recipe.data.max_length}: the model has {base.max_model_len} tokens")
    questions, dropped = select_questions(task)
    if metric_of(questions) != "accuracy":
        raise UserError(f"task.name={task.name}: has reference texts; a reward needs answers right or wrong")
    return questions, dropped
