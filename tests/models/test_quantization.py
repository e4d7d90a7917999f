"""QLoRA: what a 4-bit base holds, what is trained on it, and where the adapter is used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from safetensors.torch import load_file
from torch import Tensor

from tale.config import recipes
from tale.config.sections import Dtype, ModelConfig
from tale.config.training import OptimizerConfig
from tale.data.examples import micro_batches
from tale.data.records import write_records
from tale.errors import UserError
from tale.models.adapters import check_adapter, read_card
from tale.models.base import resolve
from tale.models.modules import build_module
from tale.models.optimizers import make_optimizer
from tale.training.merge import MergeRecipe, merge
from tale.training.run import train
from tests.factories import examples, pairs, recipe
from tests.tiny_llama import tiny_llama

# QLoRA's sixteen levels (arXiv:2305.14314, appendix E).
LEVELS = torch.tensor(
    [
        *[-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635],
        *[-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725],
        *[0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0],
    ]
)


def by_hand(weight: Tensor) -> Tensor:
    """Each value as the nearest level, times its block of 64's largest magnitude."""
    blocks = weight.flatten().view(-1, 64)
    scale = blocks.abs().amax(dim=1, keepdim=True)
    nearest = (blocks / scale).unsqueeze(-1).sub(LEVELS).abs().argmin(dim=-1)
    return (LEVELS[nearest] * scale).view_as(weight)


def quantised(folder: Path, **others: str) -> ModelConfig:
    return ModelConfig(str(folder), "tiny-llama", dtype=Dtype.float32, quantization="nf4", **others)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("search") / "records.jsonl"
    write_records(file, pairs(24))
    return file


@pytest.fixture(scope="module")
def run(wide_model_folder: Path, records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the 4-bit base."""
    folder = tmp_path_factory.mktemp("runs") / "nf4"
    train(recipe(wide_model_folder, folder, records, "sft", "train.max_steps=4", "model.quantization=nf4"))
    return folder


@pytest.mark.parametrize("merged", [False, True], ids=["plain", "merged"])
def test_linear_layers_alone_are_nf4_with_quantised_scales(
    wide_model_folder: Path, run: Path, tmp_path: Path, monkeypatch, merged: bool
) -> None:
    """An adapter to merge is folded in first, in float32."""
    monkeypatch.setenv("TALE_CACHE", str(tmp_path))
    base = resolve(quantised(wide_model_folder, **({"merge_adapter": str(run / "adapter")} if merged else {})))
    plain, held = base.merged(), base.load()
    layers = {name: layer for name, layer in held.named_modules() if isinstance(layer, Linear4bit)}
    assert len(layers) == 2 * 7
    for name, layer in layers.items():
        state = layer.weight.quant_state
        assert (state.quant_type, state.nested, layer.weight.dtype) == ("nf4", True, torch.uint8)
        # Double quantisation rounds the scales to 8 bits.
        weight = plain.get_submodule(name).weight
        torch.testing.assert_close(dequantize_4bit(layer.weight, state), by_hand(weight), rtol=0.02, atol=0.01)
    kept = {name: p for name, p in held.named_parameters() if p.dtype == torch.float32}
    assert {name.rpartition(".")[0] for name in kept}.isdisjoint(layers)
    torch.testing.assert_close(kept, {name: plain.get_parameter(name) for name in kept}, rtol=0, atol=0)


def test_a_4_bit_step_is_the_step_on_dequantised_weights(wide_model_folder: Path, tmp_path: Path) -> None:
    """The same loss and gradients as of a float32 model with the dequantised weights."""
    made = recipe(wide_model_folder, tmp_path, tmp_path, "sft", "lora.lora_dropout=0", "model.quantization=nf4")
    base = resolve(made.model)
    held, plain = base.load(), tiny_llama(hidden_size=64)
    with torch.no_grad():
        for name, layer in held.named_modules():
            if isinstance(layer, Linear4bit):
                plain.get_submodule(name).weight.copy_(dequantize_4bit(layer.weight, layer.weight.quant_state))
    (batch,) = micro_batches(examples(4), 4)
    losses, gradients = [], []
    for model in (held, plain):
        torch.manual_seed(0)
        module = build_module(made, model, base.name)
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        with torch.no_grad():
            for name, parameter in trained.items():
                if "lora_B" in name:
                    parameter.copy_(torch.randn(parameter.shape) * 0.1)
        loss = module.training_step(batch)["loss"]
        loss.backward()
        losses.append(loss.detach())
        gradients.append({name: p.grad for name, p in trained.items()})
        assert {p.dtype for p in trained.values()} == {torch.float32}
    torch.testing.assert_close(*losses, rtol=1e-4, atol=0)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


def test_a_validation_leaves_the_4_bit_base_as_it_is(wide_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU with bfloat16 products the library would pack it anew, without gradients."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    model = resolve(quantised(wide_model_folder)).load()
    layers = [layer for layer in model.modules() if isinstance(layer, Linear4bit)]
    before = [dequantize_4bit(layer.weight, layer.weight.quant_state) for layer in layers]
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        validated = model.eval()(ids).logits
    trained = model.train()(ids).logits
    after = [dequantize_4bit(layer.weight, layer.weight.quant_state) for layer in layers]
    torch.testing.assert_close((after, trained), (before, validated), rtol=0, atol=0)


def test_rows_that_are_no_whole_blocks_are_refused_on_a_cpu(tiny_model_folder: Path) -> None:
    with pytest.raises(
        UserError, match=r"^model.quantization=nf4: model.layers.0.self_attn.q_proj has rows of 32 weights"
    ):
        resolve(quantised(tiny_model_folder)).load()


def test_an_adapter_of_a_4_bit_base_fits_the_base_in_any_dtype(
    wide_model_folder: Path, run: Path, tmp_path: Path
) -> None:
    plain = resolve(ModelConfig(str(wide_model_folder), "tiny-llama"))
    card = read_card(run / "adapter")
    assert check_adapter(run / "adapter", plain) == card
    assert card is not None
    assert (card.base, card.quantize) == (plain.identity, "nf4")
    # Merging takes the run's own recipe, and writes the checkpoint's own weights with the adapter.
    made = recipes.load(MergeRecipe, [f"adapter={run / 'adapter'}", f"output={tmp_path / 'merged'}"])
    assert made.model.quantization == "nf4"
    merged, before = load_file(merge(made) / "model.safetensors"), load_file(wide_model_folder / "model.safetensors")
    changed = {name for name, tensor in merged.items() if not torch.equal(tensor, before[name])}
    assert changed == {f"model.layers.{i}.self_attn.{kind}_proj.weight" for i in (0, 1) for kind in "qv"}


def test_8_bit_adamw_follows_adamw() -> None:
    """And holds large tensors alone in 8 bits."""
    weights = []
    for kind in ("adamw", "adamw_8bit"):
        torch.manual_seed(0)
        large, small = torch.nn.Parameter(torch.randn(64, 64)), torch.nn.Parameter(torch.randn(63, 65))
        optimizer = make_optimizer([large, small], OptimizerConfig(lr=1e-2, weight_decay=0.1, name=kind))
        before = large.detach().clone(), small.detach().clone()
        for _ in range(5):
            for parameter in (large, small):
                parameter.grad = torch.randn(parameter.shape) + 1
            optimizer.step()
        weights.append((large.detach(), small.detach()))
    assert {name: optimizer.state[large][name].dtype for name in ("state1", "state2")} == {
        "state1": torch.uint8,
        "state2": torch.uint8,
    }
    assert optimizer.state[small]["state1"].dtype == torch.float32
    assert (weights[0][0] - before[0]).abs().mean() > 0.02
    torch.testing.assert_close(weights[1][1], weights[0][1], rtol=0, atol=1e-6)
    assert (weights[1][0] - weights[0][0]).abs().mean() < 0.001


@pytest.mark.parametrize(("dtype", "fast", "warned"), [
    ("bfloat16", "float32", True), ("bfloat16", "bfloat16", False), ("float32", "float32", False),
])  # fmt: skip
def test_bfloat16_that_the_device_only_emulates_gets_a_warning(
    dtype: str,
    fast: str,
    warned: bool,
    tiny_model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("tale.models.base.fast_dtype", lambda: fast)
    resolve(ModelConfig(str(tiny_model_folder), dtype=Dtype(dtype))).load()
    assert ("no bfloat16 in hardware" in capsys.readouterr().out) is warned
