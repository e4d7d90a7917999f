"""Generation on this device: the engine beside plain `generate`, and a search against a CPU's records."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any

from gpu_models import LARGE, Cases, Size, config_of, device, random_base, random_requests
from plain import Plain, first_call
from transformers import PreTrainedModel

from tale.config.recipes import load
from tale.data.records import Record
from tale.errors import UserError
from tale.inference import Engine, Sampling
from tale.inference.requests import request_source
from tale.inference.transformers.engine import TransformersEngine
from tale.inference.transformers.probe import IdsChat
from tale.models.base import resolve
from tale.search.recipe import SearchRecipe
from tale.search.solver import search as searched
from tale.tasks.selection import select_questions

# --- The engine -----------------------------------------------------------------------------------------------------


def engine(size: Size) -> Cases:
    """The 8B shape; answers end at drawn lengths, for plain `generate` as if an end of sequence was forced there."""
    for batch in size.batches:
        yield f"batch {batch}", partial(beside_plain, size, batch)
    yield f"static cache, batch {size.batches[0]}", partial(static_cache, size, size.batches[0])


def beside_plain(size: Size, batch: int) -> dict[str, Any]:
    """Output tokens a second of both, and the ratio; and of the engine at a temperature."""
    model = random_base(config_of(size, LARGE), "bfloat16", device())
    plain = speed(size, batch, model, Plain)  # first, as on a CPU the engine replaces the model's layers
    ours = speed(size, batch, model, TransformersEngine)
    sampled = speed(size, batch, model, TransformersEngine, temperature=0.7)
    speeds = {"engine, tokens/s": ours, "generate, tokens/s": plain, "engine / generate": ours / plain}
    return speeds | {"engine, sampled / greedy": sampled / ours}


def static_cache(size: Size, batch: int) -> dict[str, Any]:
    """Plain `generate` with a static cache, whose steps transformers compiles to CUDA graphs.

    Raises:
        UserError: there is no GPU.
    """
    if device().type != "cuda":
        raise UserError("CUDA graphs need a GPU")
    model = random_base(config_of(size, LARGE), "bfloat16", device())
    return {"generate, tokens/s": speed(size, batch, model, partial(Plain, cache_implementation="static"))}


def speed(size: Size, batch: int, model: PreTrainedModel, make: Any, temperature: float = 0.0) -> float:
    """Output tokens a second of twice as many answers as fit into a batch."""
    vocabulary = model.config.vocab_size
    requests = [
        replace(request, sampling=replace(request.sampling, temperature=temperature))
        for request in random_requests(size, vocabulary, 2 * batch)
    ]
    made: Engine = make(model, IdsChat(vocabulary - 1), batch)
    first_call(made, replace(requests[0], sampling=Sampling(2)))
    began = time.perf_counter()
    done = dict(made.generate(request_source(requests)))
    return sum(completion.tokens for completion in done.values()) / (time.perf_counter() - began)


# --- Search ---------------------------------------------------------------------------------------------------------


def search(size: Size) -> Cases:
    """Generated questions with a small real model: all of them in the device's dtype, a few in float32 on both."""
    yield f"{size.questions} questions", partial(whole, size)
    yield f"{size.compared} questions in float32", partial(both, size)


def whole(size: Size) -> dict[str, Any]:
    """The search's speed and its targets."""
    began = time.perf_counter()
    records = records_of(size, size.questions, str(device()), "auto")
    seconds = time.perf_counter() - began
    return {
        "questions a second": len(records) / seconds,
        "targets": sum(bool(record.target) for record in records),
    }


def both(size: Size) -> dict[str, Any]:
    """The device's records beside a CPU's."""
    mine, expected = (records_of(size, size.compared, on, "float32") for on in (str(device()), "cpu"))
    pairs = list(zip(mine, expected, strict=True))
    return {"records equal": sum(a == b for a, b in pairs), "same budget": sum(a.budget == b.budget for a, b in pairs)}


def records_of(size: Size, count: int, on: str, dtype: str) -> list[Record]:
    """The records of the first questions.

    Raises:
        UserError: the model is not on this machine.
    """
    words = ["engine.batch_size=256", f"model.name_or_path={size.model}", f"model.dtype={dtype}", f"task.limit={count}"]
    recipe = load(SearchRecipe, ["recipe=search_qwen", *words, f"sampling.max_tokens={size.max_tokens}"])
    base = resolve(recipe.model)
    questions, _ = select_questions(recipe.task)
    made = TransformersEngine(base.load(), base.chat(), recipe.engine.batch_size, on, base.name)
    return list(searched(questions, made, Sampling(**vars(recipe.sampling)), search_wrong=recipe.search_wrong))
