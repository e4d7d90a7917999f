"""The engines of a run, from its recipe: model, adapters, device and journals."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path

from tale.config.sections import EndpointConfig, EngineConfig, ModelConfig
from tale.data.chat import Chat
from tale.errors import UserError
from tale.inference.journal import JournaledEngine
from tale.inference.openai.address import check_environment
from tale.inference.openai.engine import EndpointEngine, RemoteModel
from tale.inference.requests import Answers, Engine, More
from tale.inference.transformers.engine import TransformersEngine, find_device
from tale.inference.transformers.probe import prove_generation
from tale.inference.vllm import VllmEngine
from tale.models.adapters import adapter_fingerprint
from tale.models.base import BaseModel, resolve, tokenizer_alone
from tale.models.lora import load_adapter
from tale.text import warn

AnyModel = BaseModel | RemoteModel


def find_model(model: ModelConfig, engine: EngineConfig) -> AnyModel:
    """The model that a recipe names: weights on this machine, or a name that an endpoint knows.

    Raises:
        UserError: it is missing, gated or not a causal language model, or the engine cannot be asked for it.
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
    """The tokenizer that counts the model's prompts, without weights; None where an endpoint's usage does.

    Raises:
        UserError: it is missing, gated or cannot be read.
    """
    if engine.kind != "openai":
        return tokenizer_alone(model.name_or_path, model.template.value, "model.name_or_path")
    return find_model(model, engine).chat()


def check_model(model: ModelConfig, engine: EngineConfig) -> None:
    """Refuse what the engine cannot do with a model.

    Raises:
        UserError: it is quantised or merged where that is not in our hands.
    """
    if model.quantization and engine.kind != "transformers":
        raise UserError(f"model.quantization={model.quantization}: of engine.kind=transformers alone; leave it out")
    if model.merge_adapter and engine.kind == "openai":
        raise UserError(
            "model.merge_adapter: an endpoint has its own weights; merge with scripts/merge.py and serve the result"
        )


def engines(
    config: EngineConfig, model: AnyModel, folder: Path, adapters: Sequence[str | None] = (None,)
) -> Iterator[JournaledEngine]:
    """An engine for each adapter (None: the model itself), its completions journaled in the run's `folder`.

    They are to be used one after the other. Adapters answer unmerged. Weights are loaded once an answer is wanted that
    no journal holds.

    Raises:
        UserError: the engine cannot serve them, or a journal was written under other settings.
    """
    kinds: dict[str, Callable[..., Iterable[OnDemand | EndpointEngine]]]
    kinds = {"transformers": _transformers, "vllm": _vllm, "openai": _openai}
    made = kinds[config.kind](config, model, [Path(a) if a else None for a in adapters])
    for adapter, engine in zip(adapters, made, strict=True):
        settings = model.identity | {"engine": config.kind, "template": model.template, "tokenizer": engine.tokenizer}
        if isinstance(model, BaseModel) and isinstance(engine, OnDemand):
            settings["dtype"] = f"{model.quantize} {model.dtype}" if model.quantize else model.dtype
            settings["tokenizer_hash"] = engine.tokenizer_hash
        name = "journal.jsonl"
        if adapter:
            settings["adapter"] = adapter_fingerprint(Path(adapter))
            name = f"journal-{settings['adapter']}.jsonl"
        journaled = JournaledEngine(engine, folder / name, settings)
        if isinstance(engine, EndpointEngine) and journaled.places:
            engine.unanswered.answered = True
        yield journaled


def place_of(model: AnyModel, what: str) -> str:
    """The folder, in a run's own, of the journal of one of several models."""
    return f"{what}-{hashlib.sha256(repr(sorted(model.identity.items())).encode()).hexdigest()[:8]}"


def check_engine(config: EngineConfig, model: AnyModel) -> None:
    """Refuse an architecture on which the engine would answer otherwise than the model does.

    Raises:
        UserError: it would, or it cannot be known.
    """
    if isinstance(model, BaseModel) and config.kind == "transformers":
        prove_generation(model.architecture(), on_cpu=find_device(config.device).type == "cpu")


class OnDemand:
    """An engine of weights on this machine that is made when it is first asked."""

    def __init__(self, tokenizer: str, chat: Chat, make: Callable[[], Engine]):
        self.tokenizer, self.tokenizer_hash, self.make = tokenizer, chat.fingerprint, cache(make)

    def generate(self, more: More) -> Answers:
        """What the engine itself generates."""
        return self.make().generate(more)


def _transformers(config: EngineConfig, base: BaseModel, adapters: Sequence[Path | None]) -> Iterator[OnDemand]:
    device, chat = find_device(config.device), base.chat()
    check_engine(config, base)

    def make(adapter: Path | None) -> Engine:
        model = load_adapter(base.load(device), adapter) if adapter else base.load(device)
        return TransformersEngine(model, chat, config.batch_size, config.device, base.name, config.prefix_cache_gb)

    for adapter in adapters:  # one at a time: the weights of the one before are let go
        yield OnDemand(base.name, chat, partial(make, adapter))


def _vllm(config: EngineConfig, base: BaseModel, adapters: Sequence[Path | None]) -> list[OnDemand]:
    chat = base.chat()

    @cache  # one for all adapters
    def served() -> VllmEngine:
        folder, named = base.plain_folder(), [adapter for adapter in adapters if adapter]
        return VllmEngine(folder, chat, base.name, base.dtype, config.vllm, config.batch_size, named)

    def make(adapter: Path | None) -> Engine:
        return served().with_adapter(adapter)

    return [OnDemand(base.name, chat, partial(make, adapter)) for adapter in adapters]


def _openai(config: EngineConfig, model: RemoteModel, adapters: Sequence[Path | None]) -> list[EndpointEngine]:
    assert not any(adapters)
    asked = config.endpoint.max_concurrency
    if config.batch_size != EngineConfig.batch_size and asked == EndpointConfig.max_concurrency:
        warn(
            f"engine.batch_size is not an endpoint's: engine.endpoint.max_concurrency={asked} calls are made at a time"
        )
    return [EndpointEngine(model.name, config.endpoint, model.chat())]
