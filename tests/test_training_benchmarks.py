"""The benchmarks of training: their variants compute what the code computes, and choices are as they say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from handmade import adapted, examples
from step_profile import kind, shares
from training_ablations import AS_IT_IS, VARIANTS, neighbours
from training_speed import choose

from tale.config import LossConfig, OptimConfig
from tale.models.modules import CausalLMModule, DPOModule, SFTModule

CHANGED = [name for name, variant in VARIANTS.items() if name != AS_IT_IS and not variant.words]


def step(folder: Path, objective: type[CausalLMModule], name: str) -> tuple[float, torch.Tensor]:
    """Loss and gradient of a step of 7 examples in micro-batches of at most 3."""
    module = objective(adapted(folder), LossConfig(), OptimConfig())
    VARIANTS[name].put_in(module)
    made = examples(7, sides=1 if objective is SFTModule else 2)
    losses = [module.training_step(batch)["loss"] for batch in VARIANTS[name].deal(made, 3)]
    sum(losses).backward()
    gradients = [parameter.grad.flatten() for parameter in module.parameters() if parameter.requires_grad]
    return float(sum(losses).detach()), torch.cat(gradients)


@pytest.mark.parametrize("objective", [SFTModule, DPOModule])
@pytest.mark.parametrize("name", CHANGED)
def test_a_step_without_a_measure_has_the_same_loss_and_gradient(
    tiny_model_folder: Path, objective: type[CausalLMModule], name: str
) -> None:
    loss, gradient = step(tiny_model_folder, objective, AS_IT_IS)
    changed_loss, changed_gradient = step(tiny_model_folder, objective, name)
    assert loss > 1
    assert changed_loss == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(changed_gradient, gradient, rtol=1e-4, atol=1e-4 * float(gradient.abs().max()))


@pytest.mark.parametrize(
    ("name", "objective"), [("whole_head", SFTModule), ("padded", SFTModule), ("unshared", DPOModule)]
)
def test_a_measure_that_is_taken_away_is_gone(
    tiny_model_folder: Path, objective: type[CausalLMModule], name: str
) -> None:
    """The head sees all positions; the decoder sees rows as long as the longest; or the prompt of each pair twice."""
    seen: dict[str, list[tuple[int, ...]]] = {"head": [], "decoder": []}
    module = objective(adapted(tiny_model_folder), LossConfig(), OptimConfig())
    model = module.model.get_base_model()
    model.get_output_embeddings().register_forward_hook(lambda _, given, __: seen["head"].append(given[0].shape[:2]))
    model.get_input_embeddings().register_forward_hook(lambda _, given, __: seen["decoder"].append(given[0].shape))
    VARIANTS[name].put_in(module)
    made = examples(5, sides=1 if objective is SFTModule else 2)
    (batch,) = VARIANTS[name].deal(made, 5)
    module.training_step(batch)
    read = [[len(e.prompt) + len(answer) - 1 for answer in e.answers] for e in made]
    expected = {
        "whole_head": {"head": [(1, sum(map(sum, read)))], "decoder": [(1, sum(map(sum, read)))]},
        "padded": {"head": [], "decoder": [(5, max(map(max, read)))]},
        "unshared": {"head": [], "decoder": [(1, sum(map(sum, read)))]},
    }
    assert seen == expected[name]


def test_neighbours_are_alike_in_length() -> None:
    dealt = [max(batch.layout.lengths) for batch in neighbours(examples(7), 3)]
    assert dealt == sorted(dealt)
    assert [batch.examples for batch in neighbours(examples(7), 3)] == [3, 3, 1]


def test_ours_is_the_fastest_micro_batch_that_takes_no_more_than_trls_fastest() -> None:
    run = lambda seconds, peak: {"seconds": [seconds], "peak_gb": peak}  # noqa: E731
    theirs = {"1": run(9, 2), "4": run(7, 3), "16": None}
    assert choose({"trl": theirs, "tale": {"1": run(5, 1), "4": run(4, 3), "16": run(3, 4)}}) == {
        "tale": "4",
        "trl": "4",
    }
    assert choose({"trl": theirs, "tale": {"4": run(3, 5), "16": run(2, 6)}}) == {"tale": "4", "trl": "4"}


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("aten::mm", "matrix products"),
        ("aten::addmm", "matrix products"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", "attention"),
        ("aten::cat", "copies and concatenations"),
        ("aten::copy_", "copies and concatenations"),
        ("aten::index_select", "copies and concatenations"),
        ("aten::mul_", "elementwise"),
        ("aten::silu_backward", "elementwise"),
        ("aten::sum", "elementwise"),
        ("aten::view", "rest"),
        ("MmBackward0", "rest"),
    ],
)
def test_operators_are_told_apart_by_their_names(operator: str, expected: str) -> None:
    assert kind(operator) == expected


def test_a_product_of_large_matrices_is_nearly_all_matrix_products() -> None:
    left = torch.ones(512, 512)
    found = shares(lambda: (left @ left) + 1)
    assert sum(found.values()) == pytest.approx(1)
    assert found["matrix products"] > 0.5
    assert found["elementwise"] > 0
