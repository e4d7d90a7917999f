"""Asking one question of the base model and of a trained adapter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tale.config.fields import Recipe, opt, section
from tale.config.sections import EngineConfig, ModelConfig, SamplingConfig
from tale.data import prompts
from tale.data.question import Question
from tale.errors import UserError
from tale.grading import read
from tale.inference import Completion, Request, Sampling
from tale.inference.build import check_engine
from tale.inference.requests import request_source
from tale.inference.transformers.engine import TransformersEngine, find_device
from tale.models.adapters import check_adapter
from tale.models.base import BaseModel, resolve
from tale.models.lora import load_adapter
from tale.text import printable_lines


@dataclass
class AskRecipe(Recipe):
    """Ask one question of the base model and of a trained adapter."""

    source = "adapter"
    kept = False
    bare = "question"

    adapter: str = opt("folder of the trained adapter")
    question: str = opt("text of the question")
    model: ModelConfig = section(ModelConfig)
    sampling: SamplingConfig = section(SamplingConfig)
    engine: EngineConfig = section(EngineConfig)


def ask(recipe: AskRecipe) -> None:
    """Print the base model's and the adapter's answer with their tokens; both get the vanilla prompt."""
    base, adapter = resolve(recipe.model), Path(recipe.adapter)
    check_adapter(adapter, base)
    check_engine(recipe.engine, base)
    request = Request.user(prompts.vanilla(Question("asked", recipe.question, "")), Sampling(**vars(recipe.sampling)))
    for name, folder in (("vanilla CoT", None), (str(adapter), adapter)):
        completion = _answered(request, base, folder, recipe.engine)
        if completion.error:
            raise UserError(f"question: {completion.error}")
        print(printable_lines(_shown(name, completion)))


def _answered(request: Request, base: BaseModel, adapter: Path | None, config: EngineConfig) -> Completion:
    """The answer of the base or of the adapter, whose weights are freed on return."""
    model = base.load(find_device(config.device))
    engine = TransformersEngine(load_adapter(model, adapter) if adapter else model, base.chat(), 1, config.device)
    ((_, completion),) = engine.generate(request_source([request]))
    return completion


def _shown(name: str, completion: Completion) -> str:
    value = read(completion.text, "number", marked_only=completion.truncated).value
    cut = ", cut off" if completion.truncated else ""
    return f"── {name}: {completion.tokens} tokens{cut}, answer {value}\n{completion.text}\n"
