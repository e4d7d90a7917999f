"""The training loop: what must not change the result, what must stop it, and what a run leaves behind."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
import torch
from lightning import Fabric
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tale.config.training import LossConfig, OptimizerConfig
from tale.data.datamodule import TaleDataModule
from tale.data.examples import micro_batches
from tale.data.records import Record, write_records
from tale.errors import UserError
from tale.models.base import resolve
from tale.models.modules import CausalLMModule, DPOModule, SFTModule, build_module
from tale.training.loop import NonFiniteLossError, fit, learning_rate_factor, train_step
from tale.training.run import train
from tale.training.throughput import MEASURED
from tests.factories import adapted, examples, pairs, recipe, record, score


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("search") / "records.jsonl"
    write_records(file, pairs(30))
    return file


def set_up(module: CausalLMModule):
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    return fabric, *fabric.setup(module, module.configure_optimizers())


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every TensorBoard tag of a run with its (step, value) pairs."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


# --- one step ----------------------------------------------------------------------------------------------------

LOSSES = {
    "sft-example": (SFTModule, LossConfig(reduction="example")),
    "sft-token": (SFTModule, LossConfig(reduction="token")),
    "dpo": (DPOModule, LossConfig(length_normalized=True)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_sixteen_at_once_are_four_times_four(tiny_model_folder: Path, name: str) -> None:
    kind, loss = LOSSES[name]
    made = examples(16, sides=2 if kind is DPOModule else 1)
    metrics, adapters = [], []
    for size in (16, 4):
        module = kind(adapted(tiny_model_folder), loss, OptimizerConfig(lr=1e-2, weight_decay=0.1))
        fabric, model, optimizer = set_up(module)
        before = [p.detach().clone() for p in module.parameters() if p.requires_grad]
        metrics.append(train_step(fabric, model, optimizer, micro_batches(made, size), max_grad_norm=1.0))
        adapters.append([p.detach() for p in module.parameters() if p.requires_grad])
        assert not any(torch.equal(*both) for both in zip(before, adapters[-1], strict=True))
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-5)
    torch.testing.assert_close(*adapters, rtol=0, atol=1e-5)


def test_a_steps_metrics_are_means_over_the_whole_batch(tiny_model_folder: Path) -> None:
    made = examples(7, sides=2)
    model = adapted(tiny_model_folder)
    chosen, rejected = (torch.stack([score(model, e.prompt, e.answers[side]) for e in made]) for side in (0, 1))
    fabric, wrapped, optimizer = set_up(DPOModule(model, LossConfig(beta=0.1), OptimizerConfig()))
    metrics = train_step(fabric, wrapped, optimizer, micro_batches(made, 3), max_grad_norm=1.0)
    margin = 0.1 * (chosen - rejected)
    assert metrics["loss"] == pytest.approx(float((1 + (-margin).exp()).log().mean()), rel=1e-5)
    assert metrics["margin"] == pytest.approx(float(margin.mean()), rel=1e-4)
    assert metrics["accuracy"] == pytest.approx(float((margin > 0).double().mean()))
    assert metrics["chosen_tokens"] == pytest.approx(sum(len(e.answers[0]) for e in made) / 7)
    assert metrics["target_tokens"] == sum(len(answer) for e in made for answer in e.answers)
    # A pair's prompt is read once, an answer's last token not at all.
    assert metrics["tokens"] == sum(len(e.prompt) + sum(len(answer) - 1 for answer in e.answers) for e in made)


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_nonfinite_step_names_its_examples_updating_nothing(tiny_model_folder: Path, broken: str) -> None:
    module = SFTModule(adapted(tiny_model_folder), LossConfig(), OptimizerConfig(lr=1.0))
    fabric, model, optimizer = set_up(module)
    weight = next(p for p in module.parameters() if p.requires_grad)
    if broken == "loss":
        weight.data[0, 0] = math.inf
    else:
        weight.register_hook(lambda gradient: gradient * math.nan)
    before = [p.detach().clone() for p in module.parameters()]
    with pytest.raises(NonFiniteLossError, match=r"on the examples: (e/\d(, )?){3}$") as error:
        train_step(fabric, model, optimizer, micro_batches(examples(3), 2), max_grad_norm=1.0)
    assert all(f"e/{i}" in str(error.value) for i in range(3))
    assert all(torch.equal(*both) for both in zip(before, module.parameters(), strict=True))


def test_the_gradient_is_clipped_to_its_norm(tiny_model_folder: Path) -> None:
    """Under plain gradient descent of rate 1 the adapter moves by the clipped gradient itself."""
    module = SFTModule(adapted(tiny_model_folder), LossConfig(), OptimizerConfig())
    fabric = Fabric(accelerator="cpu", devices=1)
    trained = [p for p in module.parameters() if p.requires_grad]
    model, optimizer = fabric.setup(module, torch.optim.SGD(trained, lr=1.0))
    before = [p.detach().clone() for p in trained]
    metrics = train_step(fabric, model, optimizer, micro_batches(examples(4), 4), max_grad_norm=0.25)
    moved = torch.cat([(p.detach() - b).flatten() for p, b in zip(trained, before, strict=True)])
    assert metrics["grad_norm"] > 1
    assert float(moved.norm()) == pytest.approx(0.25, rel=1e-4)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("cosine", [1 / 3, 2 / 3, 1, (1 + math.cos(math.pi / 4)) / 2, 0.5, (1 - math.cos(math.pi / 4)) / 2]),
        ("linear", [1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25]),
        ("constant", [1 / 3, 2 / 3, 1, 1, 1, 1]),
    ],
)
def test_the_learning_rate_by_hand(decay: str, expected: list[float]) -> None:
    """Six steps, a quarter of them (rounded up: two) warm-up, and four to fall over."""
    optim = OptimizerConfig(warmup_ratio=0.25, lr_scheduler=decay)
    assert [learning_rate_factor(step, 6, optim) for step in range(6)] == pytest.approx(expected)


# --- a whole run -------------------------------------------------------------------------------------------------

EPOCHS = ["train.global_batch_size=8", "train.micro_batch_size=4"]


def test_training_leaves_the_base_alone(tiny_model_folder: Path, records: Path, tmp_path: Path) -> None:
    made = recipe(tiny_model_folder, tmp_path / "run", records, "sft", *EPOCHS)
    Path(made.output).mkdir()
    base = resolve(made.model)
    data = TaleDataModule(made, base.chat())
    data.setup()
    module = build_module(made, base.load(), base.name)
    fresh = {name: p.detach().clone() for name, p in module.named_parameters()}
    fit(Fabric(accelerator="cpu", devices=1, loggers=[]), made, module, data, base.identity)
    changed = {name for name, p in module.named_parameters() if not torch.equal(p, fresh[name])}
    assert changed == {name for name in fresh if "lora_" in name}


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "checkpointing"), [("sft", False), ("sft", True), ("dpo", False)])
def test_compiled_layers_compute_the_same(
    tiny_model_folder: Path, records: Path, tmp_path: Path, objective: str, checkpointing: bool
) -> None:
    """Loss and gradient of two batches of different lengths; one graph serves both layers and both lengths."""
    torch.compiler.reset()
    made = examples(8, sides=1 if objective == "sft" else 2)
    results = []
    for compiled in ("false", "true"):
        options = [
            "lora.lora_dropout=0",
            f"train.torch_compile={compiled}",
            f"train.gradient_checkpointing={checkpointing}",
        ]
        base = resolve((one := recipe(tiny_model_folder, tmp_path, records, objective, *options)).model)
        torch.manual_seed(0)
        module = build_module(one, base.load(), base.name).train()  # else nothing is checkpointed
        losses = []
        for batch in micro_batches(made[:3], 3) + micro_batches(made[3:], 5):
            losses.append(module.training_step(batch)["loss"])
            losses[-1].backward()
        results.append([torch.stack(losses).detach(), *(p.grad for p in module.parameters() if p.requires_grad)])
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)
    assert all(float(gradient.abs().max()) > 0 for gradient in results[0][2::2])


def test_resuming_a_finished_run_changes_nothing(tiny_model_folder: Path, records: Path, tmp_path: Path) -> None:
    made = recipe(tiny_model_folder, tmp_path / "run", records, "sft", *EPOCHS)
    train(made)
    first = adapter(tmp_path / "run")
    made.resume = "auto"
    train(made)
    assert all(torch.equal(tensor, first[name]) for name, tensor in adapter(tmp_path / "run").items())


def test_two_checkpoints_are_kept_and_a_new_run_uses_none(tiny_model_folder, records, tmp_path):
    made = recipe(tiny_model_folder, tmp_path / "run", records, "sft", *EPOCHS, "train.max_steps=5")
    train(made)
    names = lambda: sorted(file.name for file in (tmp_path / "run" / "checkpoints").iterdir())  # noqa: E731
    assert names() == ["step-000004.ckpt", "step-000005.ckpt"]
    made.train.max_steps = 1
    time.sleep(1)  # TensorBoard orders a run's files by the second they were begun in
    train(made)
    assert names() == ["step-000001.ckpt"]
    assert [step for step, _ in scalars(tmp_path / "run")["train/loss"]] == [0]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("optimizer.lr=1e-3", "optimizer"),
        ("lora.lora_alpha=8", "lora"),
        ("lora.r=4", "lora"),
        ("lora.target_modules=[q_proj]", "lora"),
        ("train.seed=1", "train"),
        ("loss.reduction=token", "loss"),
        ("objective=dpo", "objective, data"),
        ("data.val_fraction=0.5", "data, number of steps"),
        ("model.name=other", "model"),
        ("fabric.precision=bf16-mixed", "precision"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(one_step: Path, tiny_model_folder, records, change, named) -> None:
    made = recipe(tiny_model_folder, one_step, records, "sft", "train.max_steps=1", "resume=auto", change)
    described = (one_step / "recipe.yaml").read_text()
    with pytest.raises(UserError, match=rf"step-000001\.ckpt: written with another {named};"):
        train(made)
    assert (one_step / "recipe.yaml").read_text() == described


@pytest.fixture(scope="module")
def one_step(tiny_model_folder: Path, records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one checkpoint."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    train(recipe(tiny_model_folder, folder, records, "sft", "train.max_steps=1"))
    return folder


def test_a_damaged_checkpoint_is_named(tiny_model_folder: Path, records: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "step-000001.ckpt").write_bytes(b"PK cut off")
    with pytest.raises(UserError, match=r"step-000001\.ckpt: damaged"):
        train(recipe(tiny_model_folder, tmp_path / "run", records, "sft", "resume=auto"))


COMMON = {"loss", "lr", "grad_norm", "tokens", *MEASURED}
DPO = {"margin", "accuracy", "saturated", "chosen_logprob", "rejected_logprob", "chosen_tokens", "rejected_tokens"}


@pytest.mark.parametrize(("objective", "logged"), [("sft", set()), ("dpo", DPO)])
def test_tensorboard_shows_the_run_from_step_0(tiny_model_folder, records, tmp_path, objective, logged) -> None:
    folder = tmp_path / "run"
    options = [
        *EPOCHS,
        "train.max_steps=5",
        "optimizer.lr=0.04",
        "optimizer.warmup_ratio=0",
        "optimizer.lr_scheduler=linear",
    ]
    options += ["lora.lora_dropout=0", *(["loss.beta=0.01"] if objective == "dpo" else [])]
    made = recipe(tiny_model_folder, folder, records, objective, *options)
    train(made)
    seen = scalars(folder)
    assert set(seen) >= {f"train/{name}" for name in COMMON | logged} | {f"val/{name}" for name in {"loss", *logged}}
    assert [step for step, _ in seen["train/loss"]] == [0, 1, 2, 3, 4]
    assert [step for step, _ in seen["val/loss"]] == [0, 2, 4, 5]  # every second step, and the last
    assert [rate for _, rate in seen["train/lr"]] == pytest.approx([0.04, 0.032, 0.024, 0.016, 0.008])
    assert seen["val/loss"][-1][1] < seen["val/loss"][0][1]

    # Step 0 is the base model itself.
    base = resolve(made.model)
    data = TaleDataModule(made, base.chat())
    data.setup()
    model = base.load()
    chosen = torch.stack([score(model, e.prompt, e.answers[0]) for e in data.validation])
    if objective == "sft":
        assert seen["val/loss"][0][1] == pytest.approx(float(-chosen.mean()), rel=1e-5)
    else:
        rejected = torch.stack([score(model, e.prompt, e.answers[1]) for e in data.validation])
        assert seen["val/chosen_logprob"][0][1] == pytest.approx(float(chosen.mean()), rel=1e-5)
        assert seen["val/rejected_logprob"][0][1] == pytest.approx(float(rejected.mean()), rel=1e-5)
        assert seen["val/accuracy"][0][1] == pytest.approx(float((chosen > rejected).double().mean()))


def test_a_saturated_start_is_warned_of(tiny_model_folder: Path, tmp_path: Path, capsys) -> None:
    """The paper's score is a sum: three bytes beat a hundred before any training, but not on their mean."""
    write_records(tmp_path / "r.jsonl", [record(f"q/{i}", f"{i}?", "[1]", vanilla="so " * 33) for i in range(8)])
    start = lambda *options: train(  # noqa: E731
        recipe(tiny_model_folder, tmp_path / "run", tmp_path / "r.jsonl", "dpo", "train.max_steps=1", *options)
    )
    start()
    assert "warning: 100% of the first step's pairs have a margin above 10 nats" in capsys.readouterr().out
    start("loss.length_normalized=true")
    assert "warning" not in capsys.readouterr().out


def test_more_devices_than_examples_in_a_step_are_refused(tiny_model_folder, records, tmp_path, monkeypatch) -> None:
    class OneOfTwo(Fabric):
        """Says that it is one of two processes."""

        world_size = 2

    monkeypatch.setattr("tale.runs.devices.Fabric", OneOfTwo)
    made = recipe(
        tiny_model_folder, tmp_path / "run", records, "sft", "train.global_batch_size=1", "train.micro_batch_size=1"
    )
    with pytest.raises(UserError, match="2 devices, but a step has only 1 examples"):
        train(made)


def longer_is_better(count: int) -> list[Record]:
    """The chosen answer is the rejected one and three bytes more, so that an untrained score is against it."""
    return [
        record(f"q/{i}", f"Story {i}: {i % 10} cats sleep.", f"So [[{i % 10}]]", vanilla=f"[[{i % 10}]]")
        for i in range(count)
    ]


@pytest.mark.slow
def test_dpo_learns_to_prefer_the_longer_answer(tiny_model_folder: Path, tmp_path: Path) -> None:
    write_records(tmp_path / "r.jsonl", longer_is_better(80))
    options = [
        *[
            "train.global_batch_size=8",
            "train.micro_batch_size=8",
            "train.epochs=4",
            "data.val_fraction=0.3",
            "optimizer.lr=2e-2",
        ],
        "lora.target_modules=[q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj]",
    ]
    train(recipe(tiny_model_folder, tmp_path / "run", tmp_path / "r.jsonl", "dpo", *options))
    accuracy = [value for _, value in scalars(tmp_path / "run")["val/accuracy"]]
    assert accuracy[0] < 0.5
    assert accuracy[-1] > 0.9
