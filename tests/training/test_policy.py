"""vLLM's policy: the module's adapter as it is, saved and loaded anew at each step."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor

from tale.config.sections import EngineConfig
from tale.config.training import LossConfig, OptimizerConfig
from tale.models.modules import SFTModule
from tale.training import policy
from tests.factories import adapted


class Recorded:
    """In place of the engine: each adapter's tensors, as they are on disk when it is asked to answer."""

    def __init__(self, *arguments: object) -> None:
        self.found: list[dict[str, Tensor]] = []
        self.processed = arguments[-1]

    def with_adapter(self, adapter: Path) -> Recorded:
        self.found.append(load_file(adapter / "adapter_model.safetensors"))
        return self

    with_new_adapter = with_adapter

    def generate(self, more: object) -> tuple:
        return ()


def test_every_step_serves_the_adapter_of_that_step(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "VllmEngine", Recorded)
    module = SFTModule(adapted(tiny_model_folder), LossConfig(), OptimizerConfig())
    base = SimpleNamespace(name="tiny-llama", dtype="float32", checkpoint_folder=lambda: tiny_model_folder)
    served = policy.VllmPolicy(module, base, None, EngineConfig(kind="vllm"), tmp_path)
    expected = []
    for step in range(2):
        expected.append({k: v.clone() for k, v in get_peft_model_state_dict(module.model).items()})
        with ExitStack() as stack:
            list(served.engine(stack, step).generate(tuple))
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(parameter.requires_grad)
    (engine,) = served.started
    torch.testing.assert_close(engine.found, expected, rtol=0, atol=0)
    assert engine.processed is True
    assert not [*tmp_path.iterdir()]  # a step's adapter is removed after its rollout
