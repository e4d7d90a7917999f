"""vLLM's policy: the module's adapter as it is, saved and loaded at each step. With vLLM: `pytest -m vllm`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from tale.config.sections import Dtype, EngineConfig, ModelConfig
from tale.config.training import LossConfig, OptimizerConfig
from tale.inference import Completion, Sampling
from tale.models.base import resolve
from tale.models.modules import SFTModule
from tale.training import policy
from tests.factories import Ids, adapted
from tests.fake_engine import ask, generate
from tests.tiny_llama import saved, tiny_llama

GREEDY = Sampling(max_tokens=20)
TEXTS = ["2 + 2?", "Tom has 3 pens, Ann has 4.", "A"]


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


@pytest.mark.vllm
def test_vllm_answers_as_the_live_model_at_every_step(
    tiny_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """The same greedy answers with the same log-probabilities, before and after a change of the weights."""
    pytest.importorskip("vllm", reason="vLLM is in the environment that `make vllm` makes")
    folder = saved(tiny_llama(hidden_size=128, head_dim=64), tiny_tokenizer, tmp_path_factory)
    module = SFTModule(adapted(folder), LossConfig(), OptimizerConfig())
    base, chat = resolve(ModelConfig(str(folder), dtype=Dtype.float32)), Ids(tiny_tokenizer)
    served = policy.VllmPolicy(module, base, chat, EngineConfig(kind="vllm"), tmp_path)
    live = policy.LivePolicy(module, base, chat, EngineConfig())
    steps = []
    for step in range(2):
        found, expected = greedy(served, step), greedy(live, step)
        assert [c.ids for c in found] == [c.ids for c in expected]
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours.logprobs, theirs.logprobs, rtol=0, atol=1e-4)
        steps.append([c.ids for c in found])
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(1 + 0.5 * parameter.requires_grad)
    served.started[0].close()
    assert steps[0] != steps[1]


def greedy(served: policy.Policy, step: int) -> list[Completion]:
    """The answers of a step's policy."""
    requests = [replace(ask(text), logprobs=True, processed_logprobs=True) for text in TEXTS]
    with ExitStack() as stack:
        done = dict(generate(served.engine(stack, step), requests, GREEDY))
    return [done[number] for number in range(len(requests))]
