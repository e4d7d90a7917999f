"""The training modules on a tiny Llama with adapters, against scores computed one sequence at a time."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from handmade import END_ID, adapted, examples, score
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tale.config import LossConfig, OptimConfig
from tale.data.examples import Batch, Example, collate
from tale.models.modules import DPOModule, SFTModule

SINGLES, PAIRS = examples(6), examples(5, sides=2)


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path) -> PeftModel:
    return adapted(tiny_model_folder).eval()


def scores(model: torch.nn.Module, made: list[Example], side: int = 0) -> torch.Tensor:
    return torch.stack([score(model, e.prompt, e.answers[side]) for e in made])


def lengths(made: list[Example], side: int) -> torch.Tensor:
    return torch.tensor([len(e.answers[side]) for e in made])


def test_logprobs_are_those_of_each_sequence_alone(model: PeftModel) -> None:
    module = SFTModule(model, LossConfig(), OptimConfig())
    expected = scores(model, SINGLES)
    assert len({round(float(s)) for s in expected}) > 3  # sequences that differ, or the comparison says little
    torch.testing.assert_close(module.logprobs(collate(SINGLES)).double(), expected, rtol=1e-5, atol=1e-4)


def test_more_padding_and_other_padding_change_nothing(model: PeftModel) -> None:
    module = SFTModule(model, LossConfig(), OptimConfig())
    plain, other = collate(SINGLES), collate(SINGLES, pad_id=END_ID)
    wider = Batch(
        torch.cat([plain.input_ids, torch.randint(0, 256, (6, 9))], dim=1),
        torch.cat([plain.labels, torch.full((6, 9), -100)], dim=1),
        plain.ids,
    )
    expected = module.logprobs(plain)
    for batch in (other, wider):
        torch.testing.assert_close(module.logprobs(batch), expected, rtol=1e-6, atol=1e-5)


def test_left_padding_in_plain_transformers_gives_the_same(model: PeftModel) -> None:
    """As the engine pads: on the left, with an attention mask."""
    width = max(e.length for e in SINGLES)
    rows = [e.prompt + e.answers[0] for e in SINGLES]
    ids = torch.tensor([[END_ID] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    logprobs = model(input_ids=ids, attention_mask=mask).logits[:, :-1].log_softmax(dim=-1)
    picked = logprobs.gather(2, ids[:, 1:, None])[..., 0]
    theirs = torch.stack([row[-len(e.answers[0]) :].sum() for row, e in zip(picked, SINGLES, strict=True)])
    ours = SFTModule(model, LossConfig(), OptimConfig()).logprobs(collate(SINGLES))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_the_token_mean_is_transformers_own_loss(model: PeftModel) -> None:
    module, batch = SFTModule(model, LossConfig(mean="token"), OptimConfig()), collate(SINGLES)
    width = max(e.length for e in SINGLES)
    ids, labels, mask = torch.zeros(6, width, dtype=torch.long), torch.full((6, width), -100), torch.zeros(6, width)
    for i, e in enumerate(SINGLES):
        ids[i, : len(e.prompt) + len(e.answers[0])] = torch.tensor(e.prompt + e.answers[0])
        labels[i, len(e.prompt) : len(e.prompt) + len(e.answers[0])] = torch.tensor(e.answers[0])
        mask[i, : len(e.prompt) + len(e.answers[0])] = 1
    theirs = model(input_ids=ids, labels=labels, attention_mask=mask).loss
    ours = module.training_step(batch)["loss"] / module.weight(batch)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)


def test_the_example_mean_is_the_papers(model: PeftModel) -> None:
    module, batch = SFTModule(model, LossConfig(mean="example"), OptimConfig()), collate(SINGLES)
    ours = module.training_step(batch)["loss"] / module.weight(batch)
    assert ours.item() == pytest.approx(float(-scores(model, SINGLES).sum() / 6), rel=1e-5)


def test_length_normalised_sft_is_transformers_own_loss_of_each_example_alone(model: PeftModel) -> None:
    module, batch = SFTModule(model, LossConfig(length_normalised=True), OptimConfig()), collate(SINGLES)
    theirs = []
    for e in SINGLES:
        ids = torch.tensor([e.prompt + e.answers[0]])
        labels = torch.tensor([[-100] * len(e.prompt) + e.answers[0]])
        theirs.append(float(model(input_ids=ids, labels=labels).loss))
    ours = module.training_step(batch)["loss"] / module.weight(batch)
    assert ours.item() == pytest.approx(sum(theirs) / 6, rel=1e-5)


def test_the_pairwise_loss_is_the_papers_fraction(model: PeftModel) -> None:
    chosen, rejected = scores(model, PAIRS), scores(model, PAIRS, side=1)
    fractions = chosen.exp() / (chosen.exp() + rejected.exp())
    assert fractions.min() > 0  # float64 holds even the longest answer's probability
    step = DPOModule(model, LossConfig(), OptimConfig()).training_step(collate(PAIRS))
    assert step["loss"].item() == pytest.approx(float(-fractions.log().sum()), rel=1e-5)


def test_what_a_dpo_step_reports(model: PeftModel) -> None:
    chosen, rejected = scores(model, PAIRS), scores(model, PAIRS, side=1)
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
    module, batch = DPOModule(model, LossConfig(), OptimConfig()), collate(PAIRS)
    step = {name: value.item() for name, value in module.training_step(batch).items() if name != "loss"}
    assert step == pytest.approx(expected, rel=1e-5)
    assert module.weight(batch) == 5


def test_standard_dpo_by_hand(model: PeftModel, tiny_model_folder: Path) -> None:
    """The reference is the base as it lies on disk; β scales, lengths divide."""
    base = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    ratios = [(scores(model, PAIRS, side) - scores(base, PAIRS, side)) / lengths(PAIRS, side) for side in (0, 1)]
    margins = 0.5 * (ratios[0] - ratios[1])
    loss = LossConfig(reference=True, beta=0.5, length_normalised=True)
    step = DPOModule(model, loss, OptimConfig()).training_step(collate(PAIRS))
    assert float(step["margin"]) == pytest.approx(float(margins.sum()), rel=1e-4)
    assert step["loss"].item() == pytest.approx(float((1 + (-margins).exp()).log().sum()), rel=1e-4)


def test_standard_dpo_starts_at_ln_2_exactly(tiny_model_folder: Path) -> None:
    """Fresh adapters add nothing, with dropout too; float32 doubles ln 2 without rounding."""
    module = DPOModule(adapted(tiny_model_folder, spread=0, dropout=0.5), LossConfig(reference=True), OptimConfig())
    step = module.train().training_step(collate(PAIRS[:2]))
    assert step["margin"] == 0
    assert step["loss"] == 2 * torch.tensor(math.log(2))


def test_the_reference_takes_no_gradient(tiny_model_folder: Path) -> None:
    """A reference rescales the paper's gradient by another σ(−margin); its direction stays."""
    gradients = []
    for loss in (LossConfig(), LossConfig(reference=True)):
        model = adapted(tiny_model_folder)
        step = DPOModule(model, loss, OptimConfig()).training_step(collate(PAIRS[:1]))
        step["loss"].backward()
        factor = torch.sigmoid(-step["margin"])
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad]) / factor)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


def test_the_optimizer_holds_the_adapters_alone(model: PeftModel) -> None:
    optimizer = SFTModule(model, LossConfig(), OptimConfig(lr=3e-5, weight_decay=0.001)).configure_optimizers()
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.AdamW)
    assert (group["lr"], group["weight_decay"]) == (3e-5, 0.001)
    adapters = {id(p) for name, p in model.named_parameters() if "lora_" in name}
    # Two layers, q and v, A and B.
    assert {id(p) for p in group["params"]} == adapters
    assert len(group["params"]) == 8
