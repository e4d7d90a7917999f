"""One question to the base model and to a trained adapter."""

from __future__ import annotations

from pathlib import Path

from tale import prompts
from tale.config import AskRecipe
from tale.data.question import Question
from tale.engines import Completion, Request, Sampling
from tale.engines.build import check_engine
from tale.engines.transformers import TransformersEngine, find_device
from tale.errors import UserError
from tale.grading import read
from tale.models.adapters import check_adapter
from tale.models.base import resolve
from tale.models.lora import load_adapter
from tale.text import in_lines


def ask(recipe: AskRecipe) -> None:
    """Print the vanilla answer and the adapter's, each with its tokens; both are asked without a budget."""
    base, adapter = resolve(recipe.model), Path(recipe.adapter)
    check_adapter(adapter, base)
    check_engine(recipe.engine, base)
    request = Request(prompts.vanilla(Question("asked", recipe.question, gold="")))
    sampling, device = Sampling(**vars(recipe.sampling)), find_device(recipe.engine.device)
    for name, model in (("vanilla CoT", base.load(device)), (str(adapter), load_adapter(base.load(device), adapter))):
        ((_, completion),) = TransformersEngine(model, base.chat(), batch_size=1, device=recipe.engine.device).generate(
            [request], sampling
        )
        if completion.error:
            raise UserError(f"question: {completion.error}")
        print(in_lines(_shown(name, completion)))


def _shown(name: str, completion: Completion) -> str:
    value = read(completion.text, "number", marked_only=completion.truncated).value
    cut = ", cut off" if completion.truncated else ""
    return f"── {name}: {completion.tokens} tokens{cut}, answer {value}\n{completion.text}\n"
