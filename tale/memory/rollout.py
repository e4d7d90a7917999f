"""The memory of sampling answers with the model in training, beside its weights: keys and values, logits, a prefill."""

from __future__ import annotations

import math

import torch
from transformers import PreTrainedConfig

from tale.config.training import TrainRecipe
from tale.inference.transformers.engine import PREFILL
from tale.inference.transformers.rows import SPARE_COLUMNS

LOGITS_COPIES = 4  # of a step's logits in float32: transformers' own, divided by the temperature, noise, their sum


def rollout_bytes(recipe: TrainRecipe, architecture: PreTrainedConfig, devices: int, gpu: bool) -> int:
    """Bytes at the peak of sampling by the transformers engine on one device, all prompts and answers of full length.

    Of a step's groups, or of a validation if that asks more; how many it asks is known if `task.limit` is set. Keys and
    values of all rows, of a layer once more while rows join, and of their prompts in the prefix cache. Then the more of
    a step's logits and a prefill's activations; or, on a CPU, a copy of the head while it is repacked.
    """
    text, config, answers = architecture.get_text_config(), recipe.grpo, recipe.train.global_batch_size
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    size = getattr(torch, recipe.model.dtype.value).itemsize
    column = 2 * heads * width * size  # keys and values of a token in a layer
    groups = math.ceil(answers / config.num_generations / devices)
    held_out = recipe.data.val_fraction and recipe.data.val_fraction * (recipe.task.limit or math.inf) / devices
    rows = math.ceil(min(recipe.engine.batch_size, max(groups * config.num_generations, held_out)))
    prompt = recipe.data.max_length - config.max_completion_length
    prompts = max(groups, held_out) * prompt
    kept = rows * (recipe.data.max_length + SPARE_COLUMNS) * column
    cached = math.ceil(min(recipe.engine.prefix_cache_gb * 1e9, prompts * column * text.num_hidden_layers))
    logits = LOGITS_COPIES * 4 * rows * text.vocab_size
    wide = 3 * getattr(text, "intermediate_size", 4 * text.hidden_size) + 4 * text.hidden_size
    prefill = math.ceil(max(prompt, min(PREFILL, prompts))) * wide * size
    repacked = 0 if gpu else text.vocab_size * text.hidden_size * size
    return max(kept * (text.num_hidden_layers + 1) + cached + max(logits, prefill), repacked)
