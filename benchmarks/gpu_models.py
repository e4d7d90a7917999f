"""What the parts of gpu_proof.py share: their sizes, models with random weights, examples with random ids."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from tale.config.recipes import load
from tale.config.sections import ModelConfig
from tale.config.training import Objective, TrainRecipe
from tale.data.datamodule import TaleDataModule
from tale.data.examples import Example
from tale.inference import Request, Sampling
from tale.inference.transformers.engine import find_device
from tale.inference.transformers.probe import IdsChat
from tale.models.architectures import random_model, read_architecture
from tale.models.modules import CausalLMModule, build_module

LARGE, SMALL = "llama-3.1-8b", "llama-3.2-1b"
SPREAD = 0.5  # of the logarithm of lengths, which are drawn from a log-normal distribution; ours
SYSTEM = 20  # ids that all prompts begin with, as those of a chat template do
# Tiny: the same architectures in a thousandth of the size, their weights wide enough that context matters.
NARROW = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 512,
    "initializer_range": 0.1,
    "bos_token_id": 0,
    "eos_token_id": 511,
}
# A part is a function that yields its cases: a label, and a function that measures it. A UserError is the reason why a
# case does not run on this machine.
Cases = Iterator[tuple[str, Callable[[], dict[str, Any]]]]


@dataclass(frozen=True)
class Size:
    """How much each part does. `prompt`, `target` and `answer` are mean lengths in tokens.

    `max_length` is `data.max_length`. `batches` are the engine's batch sizes, each with twice as many requests. Of
    `questions` the first `compared` are searched again on a CPU, with up to `max_tokens` a call; `model` answers them.
    """

    tiny: bool
    max_length: int
    prompt: int
    target: int
    answer: int
    batches: tuple[int, ...]
    questions: int
    compared: int
    max_tokens: int
    steps: int
    model: str = "embedded:smollm2-135m-instruct"


SIZES = {
    # Lengths of the paper's Llama-3.1-8B on GSM8K (arXiv:2412.18547, Table 5): TALE-PT's 140 and vanilla CoT's 242.
    "gpu": Size(False, 1536, 150, 140, 242, (64, 16, 256), 512, 16, 128, 2),
    "tiny": Size(True, 48, 24, 8, 6, (4, 2), 4, 2, 12, 1),
}


def device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return find_device("auto")


def recipe_of(size: Size, objective: str, architecture: str, *words: str) -> TrainRecipe:
    """The shipped recipe of an objective for this architecture, with examples of the size's length and without end."""
    common = [f"model.name={architecture}", f"data.max_length={size.max_length}", "train.epochs=1000"]
    few = ["train.global_batch_size=4", "train.micro_batch_size=2"] if size.tiny else []
    return load(TrainRecipe, [f"recipe={objective}_llama8b", *common, "output=runs/gpu_proof/training", *few, *words])


def config_of(size: Size, name: str) -> PreTrainedConfig:
    """A bundled architecture, narrowed if the size is tiny."""
    config = read_architecture(ModelConfig(name_or_path=name))
    if size.tiny:
        for key, value in NARROW.items():
            setattr(config, key, value)
    return config


def random_base(config: PreTrainedConfig, dtype: str, on: torch.device, quantize: str | None = None) -> PreTrainedModel:
    """The architecture with random weights made on a device, the same each time."""
    torch.manual_seed(0)
    with on:
        return random_model(config, getattr(torch, dtype), quantize)


def random_module(recipe: TrainRecipe, config: PreTrainedConfig, on: torch.device) -> CausalLMModule:
    """The recipe's module around random weights."""
    return build_module(recipe, random_base(config, recipe.model.dtype.value, on, recipe.model.quantization), "random")


def lengths(count: int, mean: int, most: int) -> list[int]:
    """Lengths like those of real answers: log-normal, from 2 to `most`; always the same."""
    noise = torch.randn(count, generator=torch.Generator().manual_seed(mean))
    drawn = mean * torch.exp(SPREAD * noise - SPREAD**2 / 2)
    return drawn.round().int().clamp(2, most).tolist()


def random_examples(size: Size, recipe: TrainRecipe, vocabulary: int, count: int) -> list[Example]:
    """Examples with random ids; a pair's rejected answer is as long as the model's, the chosen one as the targets."""
    half = size.max_length // 2
    sides = [size.target, size.answer] if recipe.objective is Objective.dpo else [size.target]
    drawn = [lengths(count, mean, half) for mean in (size.prompt, *sides)]
    generator = torch.Generator().manual_seed(0)
    ids = lambda number: torch.randint(0, vocabulary, (number,), generator=generator).tolist()  # noqa: E731
    system = ids(min(SYSTEM, half // 2))
    return [
        Example(str(i), system + ids(max(1, prompt - len(system))), tuple(map(ids, answers)))
        for i, (prompt, *answers) in enumerate(zip(*drawn, strict=True))
    ]


def data_of(recipe: TrainRecipe, examples: Sequence[Example]) -> TaleDataModule:
    """The training's data, of these examples instead of a search's records."""
    data = TaleDataModule(recipe, IdsChat(0))
    data.train = list(examples)
    return data


def random_requests(size: Size, vocabulary: int, count: int) -> list[Request]:
    """Requests whose answers end at drawn lengths: random weights do not end them, so each has its limit."""
    answers, prompts = (lengths(count, mean, size.max_length // 2) for mean in (size.target, size.prompt))
    generator = torch.Generator().manual_seed(0)
    return [
        Request.user(json.dumps(torch.randint(0, vocabulary, (p,), generator=generator).tolist()), Sampling(a))
        for p, a in zip(prompts, answers, strict=True)
    ]
