"""The engine of a run, from its recipe: model, adapter, device and journal."""

from __future__ import annotations

from pathlib import Path

from tale.config import EngineConfig
from tale.engines.journal import JournaledEngine
from tale.engines.transformers import TransformersEngine, find_device
from tale.models.base import BaseModel, adapter_fingerprint
from tale.models.lora import load_adapter


def build_engine(config: EngineConfig, base: BaseModel, folder: Path, adapter: Path | None = None) -> JournaledEngine:
    """Load `base`, with `adapter` on it unmerged, and journal its completions in the run's `folder`."""
    find_device(config.device)
    chat = base.chat()  # both before the weights, which take their time
    model, journal = base.load(), folder / "journal.jsonl"
    identity = base.identity | {"dtype": base.dtype, "template": base.template}
    if adapter:
        model = load_adapter(model, adapter)
        identity["adapter"] = adapter_fingerprint(adapter)
        journal = folder / f"journal-{identity['adapter']}.jsonl"
    engine = TransformersEngine(model, chat, config.batch_size, config.device)
    return JournaledEngine(engine, journal, identity)
