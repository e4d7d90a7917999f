"""The benchmarks of training: their variants compute what the code computes, and choices are as they say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tale.config.training import LossConfig, OptimizerConfig
from tale.data.examples import pack
from tale.models.modules import CausalLMModule, DPOModule, SFTModule
from tests.factories import adapted, examples
from tests.scripts import benchmark

ablations, speed, profile = benchmark("training_ablations"), benchmark("training_speed"), benchmark("step_profile")
AS_IT_IS, VARIANTS = ablations.AS_IT_IS, ablations.VARIANTS
neighbours, show_case, variant_figures = ablations.neighbours, ablations.show_case, ablations.figures
choose, equal, figures = speed.choose, speed.equal, speed.figures
kind, shares = profile.kind, profile.shares
draw_losses, measure = benchmark("loss_curves").draw_losses, benchmark("training_steps").measure
CHANGED = [name for name, variant in VARIANTS.items() if name != AS_IT_IS and not variant.words]


def step(folder: Path, objective: type[CausalLMModule], name: str) -> tuple[float, torch.Tensor]:
    """Loss and gradient of a step of 7 examples in micro-batches of at most 3."""
    module = objective(adapted(folder), LossConfig(), OptimizerConfig())
    VARIANTS[name].put_in(module)
    made = examples(7, sides=1 if objective is SFTModule else 2)
    losses = [module.training_step(batch)["loss"] for batch in VARIANTS[name].deal(made, 3)]
    sum(losses).backward()
    gradients = [parameter.grad.flatten() for parameter in module.parameters() if parameter.requires_grad]
    return float(sum(losses).detach()), torch.cat(gradients)


@pytest.mark.parametrize("objective", [SFTModule, DPOModule])
@pytest.mark.parametrize("name", CHANGED)
def test_a_step_without_a_measure_has_equal_loss_and_gradient(
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
    module = objective(adapted(tiny_model_folder), LossConfig(), OptimizerConfig())
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


def test_neighbours_have_similar_lengths() -> None:
    dealt = [max(batch.layout.lengths) for batch in neighbours(examples(7), 3)]
    assert dealt == sorted(dealt)
    assert [batch.examples for batch in neighbours(examples(7), 3)] == [3, 3, 1]


def test_ours_is_the_fastest_within_the_memory_of_trls_fastest() -> None:
    """The fastest micro-batch that takes no more memory than TRL's fastest."""
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


def test_a_large_product_is_nearly_all_matrix_products() -> None:
    left = torch.ones(512, 512)
    found = shares(lambda: (left @ left) + 1)
    assert sum(found.values()) == pytest.approx(1)
    assert found["matrix products"] > 0.5
    assert found["elementwise"] > 0


@pytest.mark.usefixtures("one_thread")
def test_a_steps_profile_has_its_attention_products_and_copies(tiny_model_folder: Path) -> None:
    module = DPOModule(adapted(tiny_model_folder), LossConfig(), OptimizerConfig())

    def step() -> None:
        module.training_step(pack(examples(5, sides=2)))["loss"].backward()

    step()  # the first one also prepares what later ones have
    found = shares(step)
    assert min(found.values()) > 0
    assert list(found) == ["attention", "matrix products", "copies and concatenations", "elementwise", "rest"]


def test_results_are_of_all_steps_times_of_all_but_the_first() -> None:
    made = [{"seconds": 9.0 - i, "share_of_peak": 0.5, "loss": float(i), "margin": 2.0 * i} for i in range(3)]
    told = measure(lambda: made)
    assert told.pop("peak_gb") > 0
    assert told == {"seconds": [8, 7], "share_of_peak": [0.5, 0.5], "loss": [0, 1, 2], "margin": [0, 2, 4]}


def test_a_lack_of_memory_is_no_failure_but_any_other_error_is() -> None:
    def fail(message: str) -> list:
        raise RuntimeError(message)

    assert measure(lambda: fail("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")) is None
    with pytest.raises(RuntimeError, match="loss nan"):
        measure(lambda: fail("loss nan"))


def test_medians_of_the_rounds_by_hand() -> None:
    mine = [{"seconds": [2, 4], "share_of_peak": [0.6, 0.4], "loss": [1, 0.5], "peak_gb": 2}] * 2
    theirs = [{"seconds": [6, 6], "loss": [1, 0.75], "peak_gb": peak} for peak in (3, 4)]
    told = figures({"tale": mine, "trl": theirs}, 16, same_loss=True)
    assert told["seconds a step"] == {"tale": 3, "trl": 6}
    assert (told["times faster"], told["times the memory"]) == (2, 0.5)
    assert (told["share of the measured peak"], told["largest difference of losses"]) == (0.5, 0.25)
    assert told.keys() - figures({"tale": mine, "trl": theirs}, 16, same_loss=False) == {"largest difference of losses"}
    assert equal({"tale": {"16": mine[0]}, "trl": {"16": theirs[1]}}) == {
        "peak GB, both at micro-batches of 16": {"tale": 2, "trl": 4, "times the memory": 0.5}
    }
    assert equal({"tale": {"4": mine[0]}, "trl": {"4": theirs[1]}}) == {}


def test_a_variant_is_set_beside_the_code_as_it_is(capsys: pytest.CaptureFixture) -> None:
    usual = [{"seconds": [2], "loss": [0.0, 0.0], "margin": [8.0, 9.0], "peak_gb": 2}]
    told = variant_figures([{"seconds": [3], "loss": [0.0, 0.0], "margin": [8.0, 9.5], "peak_gb": 3}], usual)
    assert (told["times the seconds"], told["times the memory"]) == (1.5, 1.5)
    assert (told["largest difference of loss"], told["largest difference of margin"]) == (0, 0.5)
    show_case("dpo", {AS_IT_IS: variant_figures(usual, usual), "padded": told, "compiled": None})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "dpo: loss 0, 0; margin 8, 9"
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert rows == [
        [AS_IT_IS, "2", "1", "2", "1", "0", "0"],
        ["padded", "3", "1.5", "3", "1.5", "0", "0.5"],
        ["compiled", "no memory", "", "", "", "", ""],
    ]


def test_the_curves_are_a_png(tmp_path: Path) -> None:
    file = tmp_path / "new" / "curves.png"
    draw_losses({"sft": {"tale": [2, 1], "trl": [2, 1]}, "dpo": {"tale": [1, 0], "trl": [3, 2]}}, file)
    assert file.read_bytes().startswith(b"\x89PNG")
    assert [each.name for each in file.parent.iterdir()] == ["curves.png"]
