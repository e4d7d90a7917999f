"""The memory plan: its fake step takes what the real one takes, its counts are right by hand, it needs no network."""

from __future__ import annotations

import dataclasses
import re
import socket
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from bitsandbytes.optim import AdamW8bit
from lightning import Fabric
from torch import nn
from torch.profiler import ProfilerActivity, profile

from tale.config.recipes import load
from tale.config.sections import ModelConfig
from tale.config.training import TrainRecipe
from tale.data.examples import micro_batches
from tale.errors import UserError
from tale.hardware.devices import GB, device_named
from tale.memory.allocations import AllocationLog
from tale.memory.measure import KINDS, largest_examples, measure, micro_step, optimizer_bytes, stored_tensors
from tale.memory.plan import plan, show_plan
from tale.memory.rollout import rollout_bytes
from tale.models.architectures import empty_model, known_architectures, random_model, read_architecture
from tale.models.modules import build_module
from tests.tiny_llama import tiny_llama

TINY = tiny_llama().config
MODES = {
    "sft": [],
    "dpo": ["recipe=tiny/dpo"],
    "dpo with a reference": ["recipe=tiny/dpo", "loss.use_ref_model=true"],
    "grpo": ["recipe=tiny/grpo"],
    "grpo with a kl term": ["recipe=tiny/grpo", "grpo.beta=0.1"],
    "checkpointing": ["train.gradient_checkpointing=true"],
    "bf16-mixed": ["model.dtype=bfloat16", "fabric.precision=bf16-mixed"],
}


def tiny(*overrides: str) -> TrainRecipe:
    return load(TrainRecipe, ["recipe=tiny/sft", "data.max_length=160", "lora.lora_dropout=0.05", *overrides])


def really(recipe: TrainRecipe, size: int) -> tuple[Fabric, nn.Module, list]:
    """The same module and batch as the plan's, with real weights."""
    module = build_module(
        recipe, random_model(TINY, getattr(torch, recipe.model.dtype.value), recipe.model.quantization), ""
    )
    fabric = Fabric(accelerator="cpu", devices=1, precision=recipe.fabric.precision)
    return fabric, module, micro_batches(largest_examples(recipe, size), size)


@pytest.mark.parametrize("mode", MODES)
def test_the_fake_step_holds_what_the_real_one_holds(mode: str) -> None:
    """Byte for byte, kind for kind: the same code, once on fake tensors and once on real ones."""
    recipe = tiny(*MODES[mode])
    fabric, module, (batch,) = really(recipe, 3)
    with AllocationLog() as ledger:
        ledger.label((t for t in stored_tensors(module) if t.requires_grad), "adapters")
        ledger.label((t for t in stored_tensors(module) if not t.requires_grad), "weights")
        kinds = micro_step(fabric, module, batch, ledger, TINY.vocab_size)
    measured = measure(recipe, TINY, 3)
    assert {kind: getattr(measured, kind) for kind in KINDS} == {kind: kinds[kind] for kind in KINDS}
    # Others have their peak at a layer that is run again, or in the backward pass of attention.
    elsewhere = ("checkpointing", "dpo with a reference", "grpo", "grpo with a kl term")
    assert bool(measured.logits) == (mode not in elsewhere)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("mode", MODES)
def test_the_plans_peak_is_the_profilers(mode: str) -> None:
    """torch.profiler counts every allocation of the CPU's allocator, those inside of operators too.

    In one thread: attention's kernel has a buffer for each, which no plan counts and 50,000 parameters do not hide.
    """
    recipe = tiny(*MODES[mode], "data.max_length=400")
    fabric, module, (batch,) = really(recipe, 4)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    model = fabric.setup_module(module, move_to_device=False)
    model.train()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        fabric.backward(model.training_step(batch)["loss"])
    held = most = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    m = measure(recipe, TINY, 4)
    assert m.activations + m.logits + m.temporary == pytest.approx(most, rel=0.03)


def test_only_a_cpus_plan_in_bfloat16_has_a_square_of_scores() -> None:
    """Activations that are linear in the length have no second difference; scores are 2 layers · 4 heads · T² · 2 B."""

    def curve(device: str) -> int:
        recipes = [
            tiny(*MODES["bf16-mixed"], f"plan_device={device}", f"data.max_length={length}", "train.micro_batch_size=1")
            for length in (129, 193, 257)
        ]
        short, middle, long = (plan(recipe, TINY).measured.activations for recipe in recipes)
        return long - 2 * middle + short

    assert curve("24GB") == 0
    assert curve("this machine") == 2 * 4 * 2 * (256**2 - 2 * 192**2 + 128**2)


def test_parameters_and_their_bytes_are_those_by_hand() -> None:
    """Tiny: 258 · 32 embeddings, twice (q 32², k and v 16 · 32, o 32², three of 64 · 32, two norms), a norm."""
    layer = 32 * 32 + 2 * 16 * 32 + 32 * 32 + 3 * 64 * 32 + 2 * 32
    frozen = 258 * 32 + 2 * layer + 32
    trained = 2 * 2 * ((32 + 32) + (32 + 16))  # two layers, rank 2, q_proj and v_proj
    measured = measure(tiny(), TINY, 1)
    assert (measured.frozen, measured.trained) == (frozen, trained)
    rotary = 2 * 4 * 4  # the rotary embedding's frequencies, kept twice
    assert measured.weights == 4 * frozen + rotary
    assert (measured.adapters, measured.gradients) == (4 * trained, 4 * trained)
    own = 4 * (layer + 2 * ((32 + 32) + (32 + 16)))
    assert measured.layer == own
    assert measured.rest == measured.weights + measured.adapters - 2 * own


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.2-1b", 1_235_814_400),
        ("smollm2-135m", 134_515_008),
        ("embedded:smollm2-135m-instruct", 134_515_008),
        ("Qwen/Qwen2.5-0.5B-Instruct", 494_032_768),
        ("Qwen/Qwen2.5-Coder-0.5B-Instruct", 494_032_768),
        ("embedded:qwen2.5-coder-0.5b-instruct", 494_032_768 + 151_936 * 896),  # its head is a tensor of its own
        ("Qwen/Qwen2.5-Coder-1.5B-Instruct", 1_543_714_304),
        ("embedded:qwen2.5-coder-1.5b-instruct", 1_543_714_304 + 151_936 * 1536),
    ],
)
def test_kept_architectures_have_the_published_parameters(name: str, parameters: int) -> None:
    model = empty_model(read_architecture(ModelConfig(name_or_path=name)), torch.bfloat16)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_four_bits_by_hand_and_as_bitsandbytes_makes_them() -> None:
    """Half a byte a weight, a byte for each 64, four for each 256 of these; with tables, at most 2 % of a layer."""
    config = dataclasses.replace(TINY, hidden_size=256, intermediate_size=512, head_dim=64)
    real = random_model(config, torch.float32, "nf4")
    layer = real.model.layers[0].mlp.up_proj
    assert isinstance(layer, Linear4bit)
    size = 256 * 512
    tables = 4 * (16 + 256 + 1)
    assert sum(t.nbytes for t in stored_tensors(layer)) == size // 2 + size // 64 + 4 * size // 64 // 256 + tables
    weights = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    assert weights.std() == pytest.approx(TINY.initializer_range, rel=0.05)
    recipe = tiny("model.quantization=nf4")
    assert measure(recipe, config, 1).weights == sum(t.nbytes for t in stored_tensors(real))
    assert type(real.lm_head) is nn.Linear


def test_a_quantised_step_trains_the_adapters_alone() -> None:
    recipe = tiny("model.quantization=nf4")
    fabric, module, (batch,) = really(recipe, 2)
    model = fabric.setup_module(module)
    fabric.backward(model.training_step(batch)["loss"])
    graded = {name for name, p in module.named_parameters() if p.grad is not None}
    assert graded == {name for name, _ in module.named_parameters() if "lora_" in name}
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)


@pytest.mark.parametrize("width", [32, 4096])
@pytest.mark.parametrize("kind", ["adamw", "adamw_8bit"])
def test_optimizer_bytes_are_what_the_optimizers_keep(kind: str, width: int) -> None:
    parameter = nn.Parameter(torch.zeros(8, width))
    if kind == "adamw":
        optimizer = torch.optim.AdamW([parameter])
        parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    else:
        optimizer = AdamW8bit([parameter])
        optimizer.init_state(optimizer.param_groups[0], parameter, 0, 0)
    state = optimizer.state[parameter]
    kept = sum(t.nbytes for name, t in state.items() if isinstance(t, torch.Tensor) and not name.startswith("qmap"))
    assert optimizer_bytes(kind, parameter.numel()) == pytest.approx(kept, abs=4)


@pytest.mark.parametrize(
    ("options", "rows", "prompts", "prompt"),
    [
        (["data.val_fraction=0"], 4, 1, 496),
        ([], 20, 20, 496),  # held out: a fifth of 100
        (["engine.batch_size=8"], 8, 20, 496),
        (["data.val_fraction=0", "data.max_length=3016"], 4, 1, 3000),
    ],
)
def test_sampling_by_hand(options: list[str], rows: int, prompts: int, prompt: int) -> None:
    """Float32, 2 layers with 2 key heads of 8, 64 wide: keys and values of the rows three times, as they join in one
    layer, and of the prompts once; then a prefill of at most 2,048 tokens, or of one prompt."""
    given = ["recipe=tiny/grpo", "train.global_batch_size=4", "engine.batch_size=64", "task.limit=100", *options]
    column = 2 * 2 * 8 * 4
    kept = 3 * rows * (prompt + 16 + 32) * column + 2 * prompts * prompt * column
    prefill = max(prompt, min(2048, prompts * prompt)) * (3 * 64 + 4 * 32) * 4
    assert rollout_bytes(load(TrainRecipe, given), TINY, 1, gpu=True) == kept + prefill


def test_strategies_divide_and_add() -> None:
    """FSDP2 divides what is stored and gathers layers; DDP copies gradients; activations stay each device's own."""
    made = {
        s: plan(tiny(f"fabric.strategy={s}", "fabric.devices=4", "train.micro_batch_size=1"), TINY)
        for s in ("ddp", "fsdp2")
    }
    parts = {s: {line.part: line.bytes for line in p.lines} for s, p in made.items()}
    m = measure(tiny(), TINY, 1)
    for part in ("weights", "adapters", "optimizer", "gradients"):
        assert parts["fsdp2"][part] == parts["ddp"][part] // 4
    assert parts["ddp"]["buckets"] == m.gradients
    assert parts["fsdp2"]["gathered"] == m.rest + 3 * m.layer
    for part in ("activations", "logits", "temporary"):
        assert parts["fsdp2"][part] == parts["ddp"][part] == getattr(m, part)


def test_a_device_has_no_more_than_its_share_of_a_step() -> None:
    """Sixteen examples over eight devices are two each, whatever the micro-batch may be."""
    few = plan(
        tiny("train.global_batch_size=16", "train.micro_batch_size=4", "fabric.devices=8", "fabric.strategy=ddp"), TINY
    )
    two = measure(tiny(), TINY, 2)
    assert few.measured.activations == two.activations
    with pytest.raises(UserError, match=r"train\.global_batch_size=4: 8 devices, but a step has only 4 examples"):
        plan(tiny("fabric.devices=8"), TINY)


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (["plan_device=16GB"], r"does not fit 16GB \(16.0 GB\): \d+.\d GB too much; to reduce it: train"),
        (
            ["plan_device=4GB", "train.micro_batch_size=1", "model.quantization=nf4"],
            r"; to reduce it: train.gradient_checkpointing=true, a smaller data.max_length\n",
        ),
        (["plan_device=H100-80GB", "train.micro_batch_size=1", "train.gradient_checkpointing=true"], "fits H100-80GB"),
    ],
)
def test_the_8b_plan_needs_no_network_no_data_and_leaves_no_run(options, answer, tmp_path, monkeypatch, capsys) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("the plan went to the network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.chdir(tmp_path)
    short = ["data.max_length=256", "plan=true"]
    show_plan(load(TrainRecipe, ["recipe=sft_llama8b", *short, *options]))
    out = capsys.readouterr().out
    assert "8,030,261,248 frozen, 3,407,872 trained" in out
    assert re.search(answer, out)
    assert list(tmp_path.iterdir()) == []


def test_what_glibc_keeps_is_said_where_it_does(monkeypatch, capsys, tmp_path) -> None:
    TINY.save_pretrained(tmp_path)
    recipe = tiny(f"model.name_or_path={tmp_path}")
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    show_plan(recipe)
    assert "glibc keeps freed blocks" in capsys.readouterr().out
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "131072")
    show_plan(recipe)
    assert "glibc" not in capsys.readouterr().out


def test_this_machine_counts_the_process_and_its_own_memory() -> None:
    made = plan(tiny("plan_device=this machine"), TINY)
    (process,) = [line for line in made.lines if line.part == "process"]
    assert 0.1 * GB < process.bytes < 20 * GB
    assert made.device.memory > process.bytes
    assert device_named("this machine", "cpu", 2).memory == device_named("this machine", "cpu").memory // 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("plan_device=H1000", "plan_device=H1000: one of this machine, .*H100-80GB.* or a size such as 24GB"),
        ("model.name_or_path=org/mystery", "model.name_or_path: org/mystery .* llama-3.1-8b, .*, smollm2-135m"),
        ("fabric.devices=many", "fabric.devices=many: the plan needs a number"),
    ],
)
def test_what_cannot_be_planned_is_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        show_plan(load(TrainRecipe, ["recipe=sft_llama8b", override]))


def test_an_architecture_is_found_by_folder_source_or_name(tmp_path: Path) -> None:
    TINY.save_pretrained(tmp_path)
    assert read_architecture(ModelConfig(name_or_path=str(tmp_path))).vocab_size == 258
    assert read_architecture(ModelConfig(name_or_path="meta-llama/Llama-3.1-8B-Instruct")).hidden_size == 4096
    assert read_architecture(ModelConfig(name_or_path="org/mine", name="SmolLM2-135M-tuned")).hidden_size == 576
    for other in ("meta-llama/Llama-3.2-11B", "org/qwen2.5-coder-1x5b", "org/smollm2"):
        with pytest.raises(UserError, match="bundled architectures"):
            read_architecture(ModelConfig(name_or_path=other))
    assert known_architectures() == ["llama-3.1-8b", "llama-3.2-1b", "qwen2.5-0.5b", "qwen2.5-1.5b", "smollm2-135m"]


@pytest.mark.parametrize("name", ["sft", "dpo"])
def test_every_shipped_training_recipe_has_an_architecture(name: str) -> None:
    for recipe in (f"{name}_llama8b", f"{name}_qwen", f"gsm8k_zero/{name}_qwen"):
        assert read_architecture(load(TrainRecipe, [f"recipe={recipe}"]).model).vocab_size > 0
