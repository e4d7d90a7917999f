"""Asking one question: both answers, from one model in memory at a time."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest

from tale.config.sections import EngineConfig, ModelConfig, SamplingConfig
from tale.data import prompts
from tale.data.question import Question
from tale.evaluation import ask
from tale.inference import Request, Sampling
from tale.inference.transformers.engine import TransformersEngine
from tale.models.adapters import AdapterCard
from tale.models.base import resolve
from tale.models.lora import load_adapter, save_adapter
from tests.factories import adapted
from tests.fake_engine import generate


def test_base_and_adapter_answer_one_after_the_other(
    tiny_model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    loads_alone: list[weakref.ref],
) -> None:
    save_adapter(adapted(tiny_model_folder), AdapterCard({}, [], []), tmp_path / "a")
    monkeypatch.setattr(ask, "check_adapter", lambda _folder, _base: None)
    config = ModelConfig(str(tiny_model_folder))
    base = resolve(config)
    request = Request.user(prompts.vanilla(Question("q", "How many?", "")), Sampling(8))
    expected = {}
    for name, adapter in (("vanilla CoT", None), (str(tmp_path / "a"), tmp_path / "a")):
        model = load_adapter(base.load(), adapter) if adapter else base.load()
        ((_, expected[name]),) = generate(TransformersEngine(model, base.chat(), 4, "cpu"), [request])
        del model
    loads_alone.clear()
    ask.ask(ask.AskRecipe(str(tmp_path / "a"), "How many?", config, SamplingConfig(8), EngineConfig()))
    assert len(loads_alone) == 2
    printed = capsys.readouterr().out
    for name, completion in expected.items():
        assert f"── {name}: {completion.tokens} tokens" in printed
    assert expected["vanilla CoT"].text != expected[str(tmp_path / "a")].text
