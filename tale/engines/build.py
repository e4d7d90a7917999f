"""The engine of a run, from its recipe: model, adapter, device and journal."""

from __future__ import annotations

from pathlib import Path

from tale.config import EngineConfig
from tale.engines.journal import JournaledEngine
from tale.engines.transformers import TransformersEngine
from tale.models.base import BaseModel, adapter_fingerprint
from tale.models.lora import load_adapter


def build_engine(config: EngineConfig, base: BaseModel, folder: Path, adapter: Path | None = None) -> JournaledEngine:
    """Load `base`, with `adapter` on it unmerged, and journal its completions in the run's `folder`."""
    model, identity, journal = base.load(), base.identity | {"dtype": base.dtype}, folder / "journal.jsonl"
    if adapter:
        model = load_adapter(model, adapter)
        identity["adapter"] = adapter_fingerprint(adapter)
        journal = folder / f"journal-{identity['adapter']}.jsonl"
    engine = TransformersEngine(model, base.chat(), config.batch_size, config.device)
    return JournaledEngine(engine, journal, identity)
