"""The training modules on a tiny Llama with adapters, against scores computed one sequence at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

from tale.config.recipes import load
from tale.config.training import LossConfig, OptimizerConfig, TrainRecipe
from tale.data.examples import Batch, Example, pack
from tale.models import modules
from tale.models.modules import CausalLMModule, DPOModule, SFTModule, build_module
from tests.factories import END_ID, adapted, examples, score

SINGLES, PAIRS = examples(6), examples(5, sides=2)


@pytest.fixture
def model(tiny_model_folder: Path) -> PeftModel:
    """For the module under test, which has it attend within packed sequences."""
    return adapted(tiny_model_folder).eval()


@pytest.fixture(scope="module")
def plain(tiny_model_folder: Path) -> PeftModel:
    """The same weights as transformers itself runs them."""
    return adapted(tiny_model_folder).eval()


def scores(model: torch.nn.Module, made: list[Example], side: int = 0) -> torch.Tensor:
    return torch.stack([score(model, e.prompt, e.answers[side]) for e in made])


def lengths(made: list[Example], side: int) -> torch.Tensor:
    return torch.tensor([len(e.answers[side]) for e in made])


def test_logprobs_are_those_of_each_sequence_alone(model: PeftModel, plain: PeftModel) -> None:
    module = SFTModule(model, LossConfig(), OptimizerConfig())
    expected = scores(plain, SINGLES)
    assert len({round(float(s)) for s in expected}) > 3  # sequences that differ, or the comparison says little
    torch.testing.assert_close(module.logprobs(pack(SINGLES)).double(), expected, rtol=1e-5, atol=1e-4)


def test_left_padding_in_plain_transformers_gives_the_same(model: PeftModel, plain: PeftModel) -> None:
    """As the engine pads: on the left, with an attention mask."""
    width = max(e.length for e in SINGLES)
    rows = [e.prompt + e.answers[0] for e in SINGLES]
    ids = torch.tensor([[END_ID] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    logprobs = plain(input_ids=ids, attention_mask=mask).logits[:, :-1].log_softmax(dim=-1)
    picked = logprobs.gather(2, ids[:, 1:, None])[..., 0]
    theirs = torch.stack([row[-len(e.answers[0]) :].sum() for row, e in zip(picked, SINGLES, strict=True)])
    ours = SFTModule(model, LossConfig(), OptimizerConfig()).logprobs(pack(SINGLES))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def gradients(module: CausalLMModule, batches: list[Batch]) -> torch.Tensor:
    """Of the summed log-probabilities, each answer weighted by its number from 1."""
    for first, batch in zip(accumulate((len(b.lengths) for b in batches), initial=1), batches, strict=False):
        (module.logprobs(batch) * torch.arange(first, first + len(batch.lengths))).sum().backward()
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.requires_grad])


def test_packed_gradients_are_those_of_padded_transformers(model: PeftModel, plain: PeftModel) -> None:
    """Padded on the right, a mask, all logits of all rows."""
    rows = [torch.tensor(e.prompt + e.answers[0]) for e in SINGLES]
    ids = pad_sequence(rows, batch_first=True)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    logprobs = plain(input_ids=ids, attention_mask=mask).logits[:, :-1].log_softmax(dim=-1)
    picked = logprobs.gather(2, ids[:, 1:, None])[..., 0]
    first = [len(e.prompt) - 1 for e in SINGLES]
    summed = [row[at : at + len(e.answers[0])].sum() for row, at, e in zip(picked, first, SINGLES, strict=True)]
    plain.zero_grad()
    (torch.stack(summed) * torch.arange(1, 7)).sum().backward()
    theirs = torch.cat([p.grad.flatten() for p in plain.parameters() if p.requires_grad])
    ours = gradients(SFTModule(model, LossConfig(), OptimizerConfig()), [pack(SINGLES)])
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_answers_that_share_a_prompt_are_two_separate_sequences(tiny_model_folder: Path) -> None:
    """Values and gradients; each pair as two examples that know nothing of each other."""
    apart = [Example(f"{e.id}/{side}", e.prompt, (e.answers[side],)) for side in (0, 1) for e in PAIRS]
    shared, separate = pack(PAIRS), pack(apart)
    assert shared.tokens == separate.tokens - sum(len(e.prompt) for e in PAIRS)
    modules = [DPOModule(adapted(tiny_model_folder).eval(), LossConfig(), OptimizerConfig()) for _ in range(2)]
    ours, theirs = (module.logprobs(batch) for module, batch in zip(modules, (shared, separate), strict=True))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    ours, theirs = (gradients(module, [batch]) for module, batch in zip(modules, (shared, separate), strict=True))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize("made", [SINGLES, PAIRS])
def test_prompts_with_a_common_prefix_are_separate_sequences(made: list[Example], tiny_model_folder: Path) -> None:
    """Values and gradients; each answer in a row of its own."""
    alike = [replace(e, prompt=[1, 2, 3, *e.prompt]) for e in made]
    apart = [replace(e, answers=(e.answers[side],)) for side in range(len(made[0].answers)) for e in alike]
    together, single = pack(alike), [pack([e]) for e in apart]
    assert together.tokens == sum(pack([e]).tokens for e in alike) - 3 * (len(alike) - 1)
    modules = [SFTModule(adapted(tiny_model_folder).eval(), LossConfig(), OptimizerConfig()) for _ in range(2)]
    alone = torch.cat([modules[1].logprobs(batch) for batch in single])
    torch.testing.assert_close(modules[0].logprobs(together), alone, rtol=1e-5, atol=1e-5)
    ours, theirs = gradients(modules[0], [together]), gradients(modules[1], single)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_gradient_checkpointing_changes_nothing(tiny_model_folder: Path) -> None:
    results = []
    for recompute in (False, True):
        module = DPOModule(adapted(tiny_model_folder), LossConfig(), OptimizerConfig()).train()
        if recompute:
            module.model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
            module.model.get_base_model().enable_input_require_grads()
        results.append(gradients(module, [pack(PAIRS)]))
    torch.testing.assert_close(*results, rtol=0, atol=0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_freed_memory_is_limited_before_each_layer(
    tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, checkpointing: bool
) -> None:
    """Where a checkpointed layer is computed again, too."""
    made = load(TrainRecipe, ["recipe=sft_llama8b", f"train.gradient_checkpointing={checkpointing}"])
    module = build_module(made, AutoModelForCausalLM.from_pretrained(tiny_model_folder), "tiny").train()
    calls: list[None] = []
    monkeypatch.setattr(modules, "limit_freed_memory", lambda: calls.append(None))
    module.training_step(pack(SINGLES))["loss"].backward()
    assert len(calls) == module.base.config.num_hidden_layers * (2 if checkpointing else 1)


def test_the_token_mean_is_transformers_own_loss(model: PeftModel, plain: PeftModel) -> None:
    module, batch = SFTModule(model, LossConfig(reduction="token"), OptimizerConfig()), pack(SINGLES)
    width = max(e.length for e in SINGLES)
    ids, labels, mask = torch.zeros(6, width, dtype=torch.long), torch.full((6, width), -100), torch.zeros(6, width)
    for i, e in enumerate(SINGLES):
        ids[i, : len(e.prompt) + len(e.answers[0])] = torch.tensor(e.prompt + e.answers[0])
        labels[i, len(e.prompt) : len(e.prompt) + len(e.answers[0])] = torch.tensor(e.answers[0])
        mask[i, : len(e.prompt) + len(e.answers[0])] = 1
    theirs = plain(input_ids=ids, labels=labels, attention_mask=mask).loss
    ours = module.training_step(batch)["loss"] / module.loss_denominator(batch)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)


def test_the_example_mean_is_the_papers(model: PeftModel, plain: PeftModel) -> None:
    module, batch = SFTModule(model, LossConfig(reduction="example"), OptimizerConfig()), pack(SINGLES)
    ours = module.training_step(batch)["loss"] / module.loss_denominator(batch)
    assert ours.item() == pytest.approx(float(-scores(plain, SINGLES).sum() / 6), rel=1e-5)


def test_length_normalised_sft_is_transformers_own_loss(model: PeftModel, plain: PeftModel) -> None:
    """Of each example alone."""
    module, batch = SFTModule(model, LossConfig(length_normalized=True), OptimizerConfig()), pack(SINGLES)
    theirs = []
    for e in SINGLES:
        ids = torch.tensor([e.prompt + e.answers[0]])
        labels = torch.tensor([[-100] * len(e.prompt) + e.answers[0]])
        theirs.append(float(plain(input_ids=ids, labels=labels).loss))
    ours = module.training_step(batch)["loss"] / module.loss_denominator(batch)
    assert ours.item() == pytest.approx(sum(theirs) / 6, rel=1e-5)


def test_the_pairwise_loss_is_the_papers_fraction(model: PeftModel, plain: PeftModel) -> None:
    chosen, rejected = scores(plain, PAIRS), scores(plain, PAIRS, side=1)
    fractions = chosen.exp() / (chosen.exp() + rejected.exp())
    assert fractions.min() > 0  # float64 holds even the longest answer's probability
    step = DPOModule(model, LossConfig(), OptimizerConfig()).training_step(pack(PAIRS))
    assert step["loss"].item() == pytest.approx(float(-fractions.log().sum()), rel=1e-5)


def test_what_a_dpo_step_reports(model: PeftModel, plain: PeftModel) -> None:
    chosen, rejected = scores(plain, PAIRS), scores(plain, PAIRS, side=1)
    margins = (chosen - rejected).tolist()
    assert {m > 0 for m in margins} == {m > 10 for m in margins} == {True, False}
    expected = {
        "margin": sum(margins),
        "accuracy": sum(m > 0 for m in margins),
        "saturated": sum(m > 10 for m in margins),
        "chosen_logprob": float(chosen.sum()),
        "rejected_logprob": float(rejected.sum()),
        "chosen_tokens": int(lengths(PAIRS, 0).sum()),
        "rejected_tokens": int(lengths(PAIRS, 1).sum()),
    }
    module, batch = DPOModule(model, LossConfig(), OptimizerConfig()), pack(PAIRS)
    step = {name: value.item() for name, value in module.training_step(batch).items() if name != "loss"}
    assert step == pytest.approx(expected, rel=1e-5)
    assert module.loss_denominator(batch) == 5


def test_standard_dpo_by_hand(model: PeftModel, plain: PeftModel, tiny_model_folder: Path) -> None:
    """The reference is the base as it lies on disk; β scales, lengths divide."""
    base = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    ratios = [(scores(plain, PAIRS, side) - scores(base, PAIRS, side)) / lengths(PAIRS, side) for side in (0, 1)]
    margins = 0.5 * (ratios[0] - ratios[1])
    loss = LossConfig(use_ref_model=True, beta=0.5, length_normalized=True)
    step = DPOModule(model, loss, OptimizerConfig()).training_step(pack(PAIRS))
    assert float(step["margin"]) == pytest.approx(float(margins.sum()), rel=1e-4)
    assert step["loss"].item() == pytest.approx(float((1 + (-margins).exp()).log().sum()), rel=1e-4)


def test_standard_dpo_starts_at_ln_2_exactly(tiny_model_folder: Path) -> None:
    """Fresh adapters add nothing, with dropout too; float32 doubles ln 2 without rounding."""
    module = DPOModule(
        adapted(tiny_model_folder, spread=0, dropout=0.5), LossConfig(use_ref_model=True), OptimizerConfig()
    )
    step = module.train().training_step(pack(PAIRS[:2]))
    assert step["margin"] == 0
    assert step["loss"] == 2 * torch.tensor(math.log(2))


def test_the_reference_takes_no_gradient(tiny_model_folder: Path) -> None:
    """A reference rescales the paper's gradient by another σ(−margin); its direction stays."""
    gradients = []
    for loss in (LossConfig(), LossConfig(use_ref_model=True)):
        model = adapted(tiny_model_folder)
        step = DPOModule(model, loss, OptimizerConfig()).training_step(pack(PAIRS[:1]))
        step["loss"].backward()
        factor = torch.sigmoid(-step["margin"])
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad]) / factor)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


def test_the_optimizer_holds_the_adapters_alone(model: PeftModel) -> None:
    optimizer = SFTModule(model, LossConfig(), OptimizerConfig(lr=3e-5, weight_decay=0.001)).configure_optimizers()
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.AdamW)
    assert (group["lr"], group["weight_decay"]) == (3e-5, 0.001)
    adapters = {id(p) for name, p in model.named_parameters() if "lora_" in name}
    # Two layers, q and v, A and B.
    assert {id(p) for p in group["params"]} == adapters
    assert len(group["params"]) == 8
