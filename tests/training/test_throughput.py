"""Throughput: operations by the formula are those that torch counts; devices are known by their drivers' names."""

from __future__ import annotations

import time

import pytest
import torch
from lightning import Fabric
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tale.config.training import LossConfig, OptimizerConfig
from tale.data.examples import Example, pack
from tale.hardware.devices import _peaks, peak_flops
from tale.models.modules import DPOModule, SFTModule
from tale.training.throughput import Throughput, Work, attended_pairs
from tests.factories import adapted, examples, recipe

SQUARE = [Example(str(i), [i] * 10, ([9] * 20,)) for i in range(3)]
PAIRS = [Example(str(i), [i] * 10, ([9] * 20, [8] * 20)) for i in range(3)]


@pytest.mark.parametrize(
    ("kind", "made", "loss"),
    [
        (SFTModule, SQUARE, LossConfig()),
        (DPOModule, PAIRS, LossConfig()),
        (DPOModule, PAIRS, LossConfig(use_ref_model=True)),
    ],
)
def test_the_formula_counts_what_torch_counts(tiny_model_folder, kind, made, loss) -> None:
    """Of a forward and backward pass whose first inputs need a gradient too, all pairs of a sequence looked at.

    In torch's plain attention no pair is spared, hence T² of them, and a shared prompt attends once for each answer;
    the reference's pass runs the base alone. Rotary embeddings are left out: in transformers 5.17 they are products.
    """
    model = adapted(tiny_model_folder)
    model.enable_input_require_grads()
    module, batch = kind(model, loss, OptimizerConfig()), pack(made)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module.training_step(batch)["loss"].backward()
    assert set(batch.layout.lengths) == {29}
    assert batch.tokens == 3 * (29 if kind is SFTModule else 29 + 19)
    pairs = sum(length**2 for length in batch.layout.lengths)
    expected = Work.of(module).flops(batch.tokens, batch.target_tokens, pairs, loss.use_ref_model)
    rotary = [of for name, of in counter.get_flop_counts().items() if name.endswith("rotary_emb")]
    assert counter.get_total_flops() - sum(sum(of.values()) for of in rotary) == expected


def test_the_numbers_in_the_tiny_models_layers_by_hand(tiny_model_folder) -> None:
    module = SFTModule(adapted(tiny_model_folder), LossConfig(), OptimizerConfig())
    layer = 32 * 32 + 2 * 16 * 32 + 32 * 32 + 3 * 64 * 32
    assert Work.of(module) == Work(2 * layer, 2 * 2 * ((32 + 32) + (32 + 16)), 258 * 32, 2 * 32)


def test_a_token_attends_to_itself_and_those_before_it() -> None:
    """Prompts of 2 and answers of which 1 and 3 ids are read: 1 + 2, then 3, then 3 + 4 + 5."""
    assert attended_pairs(pack([Example("a", [1, 2], ([3, 4], [5, 6, 7, 8]))])) == 3 + 3 + 12
    made = examples(5)
    lengths = [len(e.prompt) + len(e.answers[0]) - 1 for e in made]
    assert attended_pairs(pack(made)) == sum(n * (n + 1) // 2 for n in lengths)


def test_waiting_and_working_are_told_apart(tiny_model_folder, tmp_path) -> None:
    """Two steps that take half a second each, 0.1 s to be loaded: a sixth of the time."""

    def slow():
        for _ in range(2):
            time.sleep(0.1)
            yield [batch]

    batch = pack(SQUARE)
    module = SFTModule(adapted(tiny_model_folder), LossConfig(), OptimizerConfig())
    made = recipe(tiny_model_folder, tmp_path, tmp_path)
    throughput = Throughput(Fabric(accelerator="cpu", devices=1), made, module)
    steps = [throughput.step(batches, batch.tokens, batch.target_tokens, 0.5) for batches in throughput.loading(slow())]
    assert len(steps) == 2
    for step in steps:
        assert step["target_tokens_per_second"] == 3 * 20 / 0.5
        assert step["tokens_per_second"] == 3 * 29 / 0.5
        assert step["loading_share"] == pytest.approx(1 / 6, rel=0.1)
        assert step["flops_per_second"] == Work.of(module).flops(87, 60, 3 * 29 * 30 // 2) / 0.5
        assert step["share_of_peak"] == step["flops_per_second"] / peak_flops(torch.device("cpu"), torch.float32)
    assert throughput.summary().startswith("throughput: 120 target tokens/s, 174 tokens/s, 0.000 TFLOP/s (")


@pytest.mark.parametrize(
    ("name", "gigabytes", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", 85, 312e12),
        ("NVIDIA A100-PCIE-40GB", 42, 312e12),
        ("NVIDIA H100 80GB HBM3", 85, 989e12),
        ("NVIDIA GeForce RTX 4090", 25, 165.2e12),
        ("NVIDIA L40S", 48, 362e12),
        ("NVIDIA L4", 24, 121e12),
        ("NVIDIA A10G", 24, None),
        ("Tesla V100-SXM2-32GB", 34, None),
    ],
)
def test_a_gpu_is_known_by_its_drivers_name(name: str, gigabytes: int, peak: float | None) -> None:
    assert _peaks(name, gigabytes * 10**9).get("bfloat16") == peak
