"""Building the engines of a run from its recipe: model, adapters, device and journals."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path

from tale.config.sections import EndpointConfig, EngineConfig, ModelConfig
from tale.data.chat import Chat
from tale.errors import UserError
from tale.inference.journal import JournaledEngine
from tale.inference.openai.engine import EndpointEngine, RemoteModel, check_request
from tale.inference.openai.urls import check_environment
from tale.inference.requests import CompletionStream, Engine, Request, RequestSource
from tale.inference.transformers.engine import TransformersEngine, find_device
from tale.inference.transformers.probe import verify_generation
from tale.inference.vllm import VllmEngine
from tale.models.adapters import adapter_fingerprint
from tale.models.base import BaseModel, load_chat, resolve
from tale.models.lora import load_adapter
from tale.text import log_warning

AnyModel = BaseModel | RemoteModel


def find_model(model: ModelConfig, engine: EngineConfig) -> AnyModel:
    """The model that a recipe names: weights on this machine, or a name that an endpoint knows.

    Raises:
        UserError: it is missing, gated or not a causal language model, or the engine cannot serve it.
    """
    check_model(model, engine)
    if engine.kind != "openai":
        return resolve(model)
    check_environment(engine.endpoint)
    endpoint = engine.endpoint
    return RemoteModel(
        model.name_or_path, endpoint.base_url, endpoint.tokenizer, model.template.value, endpoint.max_model_len
    )


def find_chat(model: ModelConfig, engine: EngineConfig) -> Chat | None:
    """The tokenizer that counts the model's prompts, without weights; None if an endpoint reports its usage.

    Raises:
        UserError: it is missing, gated or cannot be read.
    """
    if engine.kind != "openai":
        return load_chat(model.name_or_path, model.template.value, "model.name_or_path")
    return find_model(model, engine).chat()


def check_model(model: ModelConfig, engine: EngineConfig) -> None:
    """Refuse quantisation and merging where the engine does not support it.

    Raises:
        UserError: the model is to be quantised or merged by an engine that cannot.
    """
    if model.quantization and engine.kind != "transformers":
        raise UserError(f"model.quantization={model.quantization}: needs engine.kind=transformers; leave it out")
    if model.merge_adapter and engine.kind == "openai":
        raise UserError("model.merge_adapter: an endpoint has its own weights; run scripts/merge.py, serve the result")


def engines(
    config: EngineConfig, model: AnyModel, folder: Path, adapters: Sequence[str | None] = (None,)
) -> Iterator[JournaledEngine]:
    """An engine for each adapter (None: the base model), with a journal in the run's `folder`.

    Use them one after the other. Adapters are not merged. Weights are loaded at the first request that no journal
    answers.

    Raises:
        UserError: the engine cannot serve them, or a journal was written with other settings.
    """
    kinds: dict[str, Callable[..., Iterable[LazyEngine | EndpointEngine]]]
    kinds = {"transformers": _transformers, "vllm": _vllm, "openai": _openai}
    made = kinds[config.kind](config, model, [Path(a) if a else None for a in adapters])
    for adapter, engine in zip(adapters, made, strict=True):
        settings = model.identity | {"engine": config.kind, "template": model.template, "tokenizer": engine.tokenizer}
        if isinstance(model, BaseModel) and isinstance(engine, LazyEngine):
            settings["dtype"] = f"{model.quantize} {model.dtype}" if model.quantize else model.dtype
            settings["tokenizer_hash"] = engine.chat.fingerprint
        name = "journal.jsonl"
        if adapter:
            settings["adapter"] = adapter_fingerprint(Path(adapter))
            name = f"journal-{settings['adapter']}.jsonl"
        journaled = JournaledEngine(engine, folder / name, settings, engine.chat)
        if isinstance(engine, EndpointEngine) and journaled.offsets:
            engine.failures.answered = True
        yield journaled


def journal_folder(model: AnyModel, what: str) -> str:
    """The subfolder of a run for the journal of one of several models."""
    return f"{what}-{hashlib.sha256(repr(sorted(model.identity.items())).encode()).hexdigest()[:8]}"


def check_engine(config: EngineConfig, model: AnyModel) -> None:
    """Refuse an architecture for which the engine's answers differ from plain `generate`.

    Raises:
        UserError: they differ, or a tiny copy cannot be tested.
    """
    if isinstance(model, BaseModel) and config.kind == "transformers":
        verify_generation(model.architecture(), on_cpu=find_device(config.device).type == "cpu")


def check_requests(config: EngineConfig, requests: Iterable[Request]) -> None:
    """Refuse requests of a kind that the engine does not support, before anything is loaded.

    Raises:
        UserError: one of them continues an assistant turn, which an endpoint cannot unless the recipe says so.
    """
    if config.kind == "openai":
        for request in requests:
            check_request(config.endpoint, request)


class LazyEngine:
    """A local engine that is built, and loads its weights, at the first request."""

    def __init__(self, tokenizer: str, chat: Chat, make: Callable[[], Engine]):
        self.tokenizer, self.chat, self.make = tokenizer, chat, cache(make)

    def generate(self, more: RequestSource) -> CompletionStream:
        """The completions of the built engine."""
        return self.make().generate(more)


def _transformers(config: EngineConfig, base: BaseModel, adapters: Sequence[Path | None]) -> Iterator[LazyEngine]:
    device, chat = find_device(config.device), base.chat()
    check_engine(config, base)

    def make(adapter: Path | None) -> Engine:
        model = load_adapter(base.load(device), adapter) if adapter else base.load(device)
        return TransformersEngine(model, chat, config.batch_size, config.device, base.name, config.prefix_cache_gb)

    for adapter in adapters:  # one at a time: the previous engine's weights are freed first
        yield LazyEngine(base.name, chat, partial(make, adapter))


def _vllm(config: EngineConfig, base: BaseModel, adapters: Sequence[Path | None]) -> list[LazyEngine]:
    chat = base.chat()

    @cache  # one engine for all adapters
    def served() -> VllmEngine:
        folder, named = base.checkpoint_folder(), [adapter for adapter in adapters if adapter]
        return VllmEngine(folder, chat, base.name, base.dtype, config.vllm, config.batch_size, named)

    def make(adapter: Path | None) -> Engine:
        return served().with_adapter(adapter)

    return [LazyEngine(base.name, chat, partial(make, adapter)) for adapter in adapters]


def _openai(config: EngineConfig, model: RemoteModel, adapters: Sequence[Path | None]) -> list[EndpointEngine]:
    assert not any(adapters)
    asked = config.endpoint.max_concurrency
    if config.batch_size != EngineConfig.batch_size and asked == EndpointConfig.max_concurrency:
        log_warning(
            "engine.batch_size has no effect on an endpoint: engine.endpoint.max_concurrency sets the calls in flight, "
            f"{asked}"
        )
    return [EndpointEngine(model.name, config.endpoint, model.chat())]
