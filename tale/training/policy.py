"""The policy as an engine: the model in training itself, or its adapter in vLLM, as it is at a step."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tale.config.sections import EngineConfig
from tale.data.chat import Chat
from tale.inference.build import LazyEngine
from tale.inference.transformers.live import live_engine
from tale.inference.vllm import VllmEngine
from tale.models.base import BaseModel
from tale.models.modules import CausalLMModule
from tale.storage.files import remove


class Policy(Protocol):
    """The model in training as what answers requests."""

    def engine(self, stack: ExitStack, step: int) -> LazyEngine:
        """An engine with the adapter of this step, until `stack` is closed; made at its first request."""
        ...


@dataclass
class LivePolicy:
    """transformers, in process, around the module's own weights."""

    module: CausalLMModule
    base: BaseModel
    chat: Chat
    config: EngineConfig

    def engine(self, stack: ExitStack, step: int) -> LazyEngine:
        """An engine around the module as it is."""
        live = lambda: stack.enter_context(  # noqa: E731
            live_engine(
                self.module.base,
                self.chat,
                self.config.batch_size,
                self.config.prefix_cache_gb,
                self.module.loaded_attention,
            )
        )
        return LazyEngine(self.base.name, self.chat, live)


@dataclass
class VllmPolicy:
    """vLLM, in process, with the module's adapter saved in `folder` and loaded under a new number at each step."""

    module: CausalLMModule
    base: BaseModel
    chat: Chat
    config: EngineConfig
    folder: Path
    started: list[VllmEngine] = field(default_factory=list)  # one, once it was needed

    def engine(self, stack: ExitStack, step: int) -> LazyEngine:
        """The engine with the module's adapter as it is."""

        def reloaded() -> VllmEngine:
            adapter = self.folder / f"adapter-{step:06d}"
            remove(adapter)
            self.module.model.save_pretrained(str(adapter), save_embedding_layers=False)
            stack.callback(remove, adapter)
            if not self.started:
                where = self.base.checkpoint_folder()
                size, name, dtype = self.config.batch_size, self.base.name, self.base.dtype
                self.started.append(VllmEngine(where, self.chat, name, dtype, self.config.vllm, size, [adapter], True))
                return self.started[0].with_adapter(adapter)
            return self.started[0].with_new_adapter(adapter)

        return LazyEngine(self.base.name, self.chat, reloaded)
