"""An engine around a model in training samples from exactly that model, and leaves no trace in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from tale.config.training import LossConfig, OptimizerConfig
from tale.data.examples import pack
from tale.inference import Request, Sampling
from tale.inference.transformers.engine import SeededSampling, TransformersEngine
from tale.inference.transformers.live import live_engine
from tale.models.modules import SFTModule
from tests.factories import Ids, adapted, examples
from tests.fake_engine import generate

SAMPLED = Sampling(12, 0.7, seed=3)
MODULES = ("q_proj", "v_proj", "down_proj")


def requests() -> list[Request]:
    texts = [chr(65 + i) * (3 + 5 * i) for i in range(5)]
    return [
        replace(Request.user(text, SAMPLED, sample), logprobs=True, processed_logprobs=True)
        for text in texts
        for sample in range(2)
    ]


def live(module: SFTModule, chat: Ids):
    return live_engine(module.base, chat, 4, 2.0, module.loaded_attention)


@pytest.fixture
def module(tiny_model_folder: Path) -> SFTModule:
    """In training, with dropout."""
    return SFTModule(adapted(tiny_model_folder, dropout=0.5, modules=MODULES), LossConfig(), OptimizerConfig()).train()


def test_a_live_engine_answers_as_one_of_the_saved_adapter(
    module: SFTModule, tiny_model_folder: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    chat = Ids(tiny_tokenizer)
    with live(module, chat) as engine:
        ours = dict(generate(engine, requests()))
    plain = adapted(tiny_model_folder, dropout=0.5, modules=MODULES).requires_grad_(False)
    theirs = dict(generate(TransformersEngine(plain, chat, 4, "cpu", in_training=True), requests()))
    assert {i: c.ids for i, c in ours.items()} == {i: c.ids for i, c in theirs.items()}


def test_an_update_shows_in_the_next_answers(module: SFTModule, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    chat, found = Ids(tiny_tokenizer), []
    for _ in range(2):
        with live(module, chat) as engine:
            found.append({i: c.ids for i, c in generate(engine, requests())})
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if "lora_B" in name:
                    parameter.mul_(-1)
    assert found[0] != found[1]


@pytest.mark.parametrize("recompute", [False, True])
def test_training_goes_on_bit_by_bit(module: SFTModule, tiny_tokenizer, recompute: bool) -> None:
    """Loss, gradient, weights, their ties and the modes of all layers; also if activations are recomputed."""
    if recompute:
        module.base.gradient_checkpointing_enable({"use_reentrant": False})
        module.base.enable_input_require_grads()
    batch = pack(examples(4))

    def stepped() -> list[torch.Tensor]:
        torch.manual_seed(0)
        module.zero_grad()
        loss = module.training_step(batch)["loss"]
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in module.parameters() if p.requires_grad)]

    before, weights = stepped(), {name: value.clone() for name, value in module.state_dict().items()}
    kept = [parameter for parameter in module.parameters() if parameter.requires_grad]
    with live(module, Ids(tiny_tokenizer)) as engine:
        assert not module.base.training
        list(generate(engine, requests()))
    assert all(layer.training for layer in module.base.modules())
    torch.testing.assert_close(stepped(), before, rtol=0, atol=0)
    torch.testing.assert_close(dict(module.state_dict()), weights, rtol=0, atol=0)
    assert all(a is b for a, b in zip(kept, (p for p in module.parameters() if p.requires_grad), strict=True))
    assert module.base.get_output_embeddings().weight is module.base.get_input_embeddings().weight


def test_tokens_are_drawn_by_their_probabilities() -> None:
    """Of 20,000 draws at temperature 1/2, within four standard deviations; a greedy row takes the best."""
    count, logits = 20_000, torch.tensor([0.5, -torch.inf, 0.0, 1.0, -torch.inf])
    generators = [torch.Generator().manual_seed(seed) for seed in range(count)]
    draw = SeededSampling(generators, [0.5] * (count - 1) + [0.0])
    chosen = draw(torch.empty(0), logits.expand(count, -1)).argmax(dim=-1)
    assert chosen[-1] == 3
    expected = (logits * 2).softmax(0)
    shares = torch.bincount(chosen[:-1], minlength=5) / (count - 1)
    assert ((shares - expected).abs() <= 4 * (expected * (1 - expected) / count).sqrt()).all()
    again = SeededSampling([torch.Generator().manual_seed(7)], [0.5])(torch.empty(0), logits[None])
    assert again.argmax() == chosen[7]  # whatever rows it is drawn with


@torch.no_grad()
def test_processed_log_probabilities_are_at_the_temperature(
    module: SFTModule, tiny_model_folder: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    chat, plain = Ids(tiny_tokenizer), adapted(tiny_model_folder, modules=MODULES).eval()
    with live(module, chat) as engine:
        completions = dict(generate(engine, requests()))
    for i, request in enumerate(requests()):
        prompt, ids = chat.prompt_ids(request.prompt), list(completions[i].ids)
        logits = plain(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1] / SAMPLED.temperature
        expected = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]
        assert completions[i].logprobs == pytest.approx(expected.tolist(), abs=1e-4)
