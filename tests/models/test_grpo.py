"""The GRPO module on a tiny Llama with adapters, against sequences computed one at a time by plain transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from tale.config.training import GRPOConfig, LossConfig, OptimizerConfig
from tale.data.examples import Batch, Example, micro_batches, pack
from tale.losses import group_advantages, grpo_loss
from tale.models.modules import GRPOModule
from tests.factories import END_ID, adapted

LONGEST = 10
REWARDS = ([1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0], [1.0, 0.5, 0.25, 0.0])


def groups(rewards: Sequence[Sequence[float]] = REWARDS, shared: int = 3) -> list[Example]:
    """A prompt and random answers for each list of rewards; all prompts begin with the same ids."""
    generator = torch.Generator().manual_seed(7)
    ids = lambda length: torch.randint(0, 256, (length,), generator=generator).tolist()  # noqa: E731
    made = []
    for i, of in enumerate(rewards):
        answers = tuple([*ids(2 * k + i), END_ID] for k in range(len(of)))
        logprobs = tuple(tuple(-torch.rand(len(a), generator=generator).double() - 4) for a in answers)
        advantages = tuple(group_advantages(torch.tensor(of)).tolist())
        prompt = [1, 2, 3][:shared] + ids(4 + 2 * i)
        made.append(Example(f"g/{i}", prompt, answers, size=len(of), advantages=advantages, logprobs=logprobs))
    return made


def module(folder: Path, **options: object) -> GRPOModule:
    config = GRPOConfig(max_completion_length=LONGEST, **options)
    return GRPOModule(adapted(folder).eval(), LossConfig(), OptimizerConfig(), config)


def token_logprobs(model: PeftModel, example: Example, answer: list[int], temperature: float = 1.0) -> Tensor:
    """Of one answer in a row of its own."""
    logits = model(torch.tensor([example.prompt + answer])).logits[0, len(example.prompt) - 1 : -1]
    return (logits / temperature).log_softmax(-1).gather(1, torch.tensor(answer)[:, None])[:, 0]


def trained(model: torch.nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


def ours(made: GRPOModule, batches: list[Batch]) -> tuple[float, Tensor]:
    """Loss and gradient of a step of these batches, as the loop has them."""
    total = sum(made.loss_denominator(batch) for batch in batches)
    losses = [made.training_step(batch)["loss"] / total for batch in batches]
    torch.stack(losses).sum().backward()
    return float(torch.stack(losses).sum().detach()), trained(made)


def close(one: tuple[float, Tensor], other: tuple[float, Tensor]) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-5, abs=1e-7)
    torch.testing.assert_close(one[1], other[1], rtol=1e-4, atol=1e-5 * float(other[1].abs().max()))


@pytest.mark.parametrize("shared", [0, 3])
def test_loss_and_gradient_are_reinforce_with_a_baseline(tiny_model_folder: Path, shared: int) -> None:
    """−Σ (r − r̄) log π / (answers × constant length), each sequence alone; and in padded rows."""
    made = groups(shared=shared)
    for padded in (False, True):
        plain = adapted(tiny_model_folder).eval()
        loss = torch.zeros(())
        for example, rewards in zip(made, REWARDS, strict=True):
            baseline = sum(rewards) / len(rewards)
            sums = [token_logprobs(plain, example, a).sum() for a in example.answers]
            if padded:
                sums = list(padded_sums(plain, example))
            loss = loss - sum((r - baseline) * s for r, s in zip(rewards, sums, strict=True)) / (12 * LONGEST)
        loss.backward()
        close(ours(module(tiny_model_folder), [pack(made)]), (float(loss.detach()), trained(plain)))


def padded_sums(model: PeftModel, example: Example) -> Tensor:
    """The answers' summed log-probabilities, in one batch of left-padded rows."""
    rows = [example.prompt + answer for answer in example.answers]
    width = max(map(len, rows))
    ids = torch.tensor([[END_ID] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    logprobs = model(input_ids=ids, attention_mask=mask).logits[:, :-1].log_softmax(-1)
    picked = logprobs.gather(2, ids[:, 1:, None])[..., 0]
    return torch.stack([row[-len(a) :].sum() for row, a in zip(picked, example.answers, strict=True)])


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
def test_groups_in_parts_have_the_same_loss_and_gradient(tiny_model_folder: Path, size: int) -> None:
    made = groups()
    batches = micro_batches(made, size)
    assert max(len(batch.lengths) for batch in batches) <= size
    assert sum(batch.examples for batch in batches) == 12
    close(ours(module(tiny_model_folder), batches), ours(module(tiny_model_folder), [pack(made)]))


def test_the_row_holds_prompts_and_their_beginning_once() -> None:
    """Sixteen answers of 100 tokens to a prompt of 150, whose last ids are not read: 150 + 16 · 99 for 16 · 249."""
    example = Example("g", [1] * 150, ([2] * 100,) * 16, size=16, advantages=(0.0,) * 16, logprobs=((0.0,) * 100,) * 16)
    assert pack([example]).tokens == 150 + 16 * 99
    assert pack(groups()).tokens == 3 + sum(len(e.prompt) - 3 + sum(len(a) - 1 for a in e.answers) for e in groups())


def test_a_group_of_one_answer_has_no_gradient(tiny_model_folder: Path) -> None:
    assert not ours(module(tiny_model_folder), [pack(groups([[3.0], [7.0]]))])[1].any()


def test_the_temperature_is_in_the_log_probabilities(tiny_model_folder: Path) -> None:
    made, plain = groups(), adapted(tiny_model_folder).eval()
    tempered = module(tiny_model_folder, temperature=0.7)
    expected = [token_logprobs(plain, e, e.answers[k], 0.7) for k in range(4) for e in made]
    batch = pack(made)
    torch.testing.assert_close(tempered.token_logprobs(batch, 0.7), torch.cat(expected), rtol=1e-5, atol=1e-4)
    (torch.cat(expected) * batch.advantages[batch.answers]).sum().neg().div(12 * LONGEST).backward()
    torch.testing.assert_close(ours(tempered, [batch])[1], trained(plain), rtol=1e-4, atol=1e-6)


def test_the_kl_terms_reference_is_without_adapter(tiny_model_folder: Path) -> None:
    """With TRL's estimator per token, over sequences one at a time."""
    made, plain = groups(), adapted(tiny_model_folder).eval()
    loss = torch.zeros(())
    for example in made:
        for answer, advantage in zip(example.answers, example.advantages, strict=True):
            logprobs = token_logprobs(plain, example, answer)
            with torch.no_grad(), plain.disable_adapter():
                ref_logprobs = token_logprobs(plain, example, answer)
            kl = torch.exp(ref_logprobs - logprobs) - (ref_logprobs - logprobs) - 1
            loss = loss + (-advantage * logprobs + 0.5 * kl).sum() / (12 * LONGEST)
    loss.backward()
    close(ours(module(tiny_model_folder, beta=0.5), [pack(made)]), (float(loss.detach()), trained(plain)))


@pytest.mark.parametrize("options", [{"num_iterations": 2, "epsilon": 0.3}, {"importance_sampling_clip_max": 1.5}])
def test_ratios_to_the_sampling_policy_by_hand(tiny_model_folder: Path, options: dict) -> None:
    made, plain = groups(), adapted(tiny_model_folder).eval()
    # So that ratios lie on both sides of what clips them.
    near = tuple(
        tuple((token_logprobs(plain, made[0], a).detach() - torch.randn(len(a))).tolist()) for a in made[0].answers
    )
    example = replace(made[0], logprobs=near)
    loss = torch.zeros(())
    for answer, advantage, sampled in zip(example.answers, example.advantages, near, strict=True):
        logprobs = token_logprobs(plain, example, answer)
        ratio = (logprobs - torch.tensor(sampled)).exp()
        if "epsilon" in options:
            loss = loss - torch.min(ratio * advantage, ratio.clamp(0.7, 1.3) * advantage).sum() / (4 * LONGEST)
        else:
            loss = loss - (ratio.detach().clamp(max=1.5) * advantage * logprobs).sum() / (4 * LONGEST)
    loss.backward()
    close(ours(module(tiny_model_folder, **options), [pack([example])]), (float(loss.detach()), trained(plain)))


def test_clipped_tokens_are_those_that_lose_their_gradient(tiny_model_folder: Path) -> None:
    (example,), plain = groups(REWARDS[:1]), adapted(tiny_model_folder).eval()
    with torch.no_grad():
        logprobs = [token_logprobs(plain, example, answer) for answer in example.answers]
    sampled = [of - torch.randn(len(of)) for of in logprobs]
    batch = pack([replace(example, logprobs=tuple(tuple(of.tolist()) for of in sampled))])
    made = torch.cat(logprobs).requires_grad_()
    advantages = batch.advantages[batch.answers]
    grpo_loss(made, advantages, sampling_logprobs=torch.cat(sampled), epsilon=0.3).backward()
    lost = (made.grad == 0) & (advantages != 0)
    ratios = (made.detach() - torch.cat(sampled)).exp()
    assert 0 < int(lost.sum()) < int(((ratios - 1).abs() > 0.3).sum())  # not all beyond 1 ± ε
    step = module(tiny_model_folder, num_iterations=2, epsilon=0.3).training_step(batch)
    assert int(step["clipped"]) == int(lost.sum())


def test_a_step_reports_entropy_and_gap_per_token(tiny_model_folder: Path) -> None:
    made, plain = groups(), adapted(tiny_model_folder).eval()
    step = module(tiny_model_folder).training_step(pack(made))
    with torch.no_grad():
        logprobs = torch.cat([token_logprobs(plain, e, a) for e in made for a in e.answers])
    sampled = torch.tensor([value for e in made for of in e.logprobs for value in of])
    assert float(step["entropy"]) == pytest.approx(float(-logprobs.sum()), rel=1e-5)
    assert float(step["logprob_gap"]) == pytest.approx(float((logprobs - sampled).abs().sum()), rel=1e-4)
