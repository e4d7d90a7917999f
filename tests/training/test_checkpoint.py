"""A checkpoint that is not what its run would have written is refused by its file and by what is wrong with it."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from tale.config.training import TrainRecipe
from tale.data.records import write_records
from tale.errors import UserError
from tale.models.base import resolve
from tale.models.modules import CausalLMModule, build_module
from tale.training.checkpoint import check, clear, latest, load, read
from tale.training.checkpoint import trained_state_dict as trained_parameters
from tale.training.loop import learning_rate_factor
from tale.training.run import train
from tests.factories import pairs, recipe

Q = "model.base_model.model.model.layers.0.self_attn.q_proj.lora_B.default.weight"
NUMBERS = "holds NaN or infinite numbers"


@pytest.fixture(scope="module")
def trained(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainRecipe:
    """A run of four steps, with checkpoints after the third and the fourth, to be resumed."""
    folder = tmp_path_factory.mktemp("runs")
    write_records(folder / "records.jsonl", pairs(12))
    options = ["train.max_steps=4", "train.save_steps=1", "train.global_batch_size=4", "lora.lora_dropout=0.1"]
    made = recipe(tiny_model_folder, folder / "run", folder / "records.jsonl", "sft", *options)
    train(made)
    made.resume = "auto"
    return made


@pytest.fixture(scope="module")
def state(trained: TrainRecipe) -> tuple[CausalLMModule, Optimizer, LRScheduler]:
    """What the run trains, as it is before a checkpoint is loaded."""
    module = build_module(trained, resolve(trained.model).load(), "tiny-llama")
    optimizer = module.configure_optimizers()
    return module, optimizer, LambdaLR(optimizer, lambda step: learning_rate_factor(step, 4, trained.optimizer))


@pytest.fixture
def run(trained: TrainRecipe, tmp_path: Path) -> TrainRecipe:
    """A copy of it, to be spoilt; its last checkpoint is of step 4."""
    shutil.copytree(trained.output, tmp_path / "run")
    return TrainRecipe(**vars(trained) | {"output": str(tmp_path / "run")})


def last(run: TrainRecipe) -> Path:
    return Path(run.output) / "checkpoints" / "step-000004.ckpt"


def rewritten(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """With its hash: as if a run had written it."""
    held = read(file)
    change(held)
    stream = io.BytesIO()
    torch.save(held, stream)
    file.write_bytes(hashlib.sha256(stream.getvalue()).digest() + stream.getvalue())


def moments(held: dict[str, Any]) -> dict[str, Any]:
    """The optimizer's state of the first trained tensor."""
    return held["optimizer"]["state"][0]


SPOILT = {
    "one missing": (lambda c: c["module"].pop(Q), f"{Q} is missing"),
    "one too many": (lambda c: c["module"].update(x=torch.ones(1)), "x is unexpected"),
    "a shape that broadcasts": (lambda c: c["module"].update({Q: c["module"][Q][:1]}), f"{Q} is 1 × 2, wanted: 32 × 2"),
    "a single number": (
        lambda c: c["module"].update({Q: torch.tensor(0.0)}),
        f"{Q} is a single number, wanted: 32 × 2",
    ),
    "another type": (lambda c: c["module"].update({Q: c["module"][Q].double()}), f"{Q} is in float64, wanted: float32"),
    "NaN": (lambda c: c["module"][Q].fill_(torch.nan), f"{Q} {NUMBERS}"),
    "no state": (lambda c: c["optimizer"]["state"].clear(), "optimizer 0 exp_avg is missing"),
    "a state less": (lambda c: moments(c).pop("exp_avg_sq"), "optimizer 0 exp_avg_sq is missing"),
    "another optimizer's": (lambda c: moments(c).update(momentum=torch.ones(1)), "optimizer 0 momentum is unexpected"),
    "an infinite moment": (lambda c: moments(c)["exp_avg"].fill_(torch.inf), f"optimizer 0 exp_avg {NUMBERS}"),
    "a broadcasting moment": (lambda c: moments(c).update(exp_avg=torch.ones(1)), "optimizer 0 exp_avg is 1, wanted"),
    "other steps": (lambda c: moments(c)["step"].fill_(3), "its optimizer has not done 4 steps"),
    "other settings": (lambda c: c["optimizer"]["param_groups"][0].update(weight_decay=9.0), "has other settings"),
    "another rate": (lambda c: c["optimizer"]["param_groups"][0].update(lr=1.0), "its optimizer has other settings"),
    "another epoch": (lambda c: c["scheduler"].update(last_epoch=2), "its schedule is not at step 4"),
    "another base rate": (lambda c: c["scheduler"].update(base_lrs=[1.0]), "its schedule is not at step 4"),
    "another step": (lambda c: c.update(step=3), "is of step 3"),
    "a part missing": (lambda c: c.pop("scheduler"), "damaged .its content is not a checkpoint's"),
}


def resumed(file: Path, identity: dict[str, str], state: tuple[CausalLMModule, Optimizer, LRScheduler]) -> None:
    check(file, identity)
    load(file, *state)


@pytest.mark.parametrize(("change", "message"), SPOILT.values(), ids=SPOILT)
def test_a_checkpoint_that_no_such_run_writes_is_refused(
    change: Callable[[dict[str, Any]], object],
    message: str,
    run: TrainRecipe,
    state: tuple[CausalLMModule, Optimizer, LRScheduler],
) -> None:
    file = last(run)
    identity = read(file)["fingerprint"]
    rewritten(file, change)
    before = trained_parameters(state[0])
    with pytest.raises(UserError, match=f"{message}.*; delete it to resume from the previous one$") as told:
        resumed(file, identity, state)
    assert str(told.value).startswith(f"{file}: ")
    torch.testing.assert_close(trained_parameters(state[0]), before, rtol=0, atol=0)


def swapped(file: Path) -> None:
    """Two tensors of the same shape, and nothing else."""
    held = torch.load(io.BytesIO(file.read_bytes()[32:]), weights_only=True)
    names = [Q, Q.replace("layers.0", "layers.1")]
    held["module"] |= dict(zip(names, [held["module"][name] for name in reversed(names)], strict=True))
    stream = io.BytesIO()
    torch.save(held, stream)
    file.write_bytes(file.read_bytes()[:32] + stream.getvalue())


def bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (swapped, "damaged .its hash differs"),
        (bit, "damaged .its hash differs"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "damaged .its hash differs"),
        (lambda file: file.write_bytes(b""), "damaged .its hash differs"),
        (lambda file: (file.unlink(), file.mkdir()), "damaged .* Is a directory"),
        (lambda file: shutil.copy(file.with_name("step-000003.ckpt"), file), "is of step 3"),
    ],
    ids=["swapped tensors", "a bit", "cut off", "empty", "a folder", "another's content"],
)
def test_a_checkpoint_that_was_altered_is_refused(
    alter: Callable[[Path], object], message: str, run: TrainRecipe
) -> None:
    identity = read(last(run))["fingerprint"]
    alter(last(run))
    with pytest.raises(UserError, match=f"^{last(run)}: {message}.*; delete it to resume from the previous one$"):
        check(last(run), identity)


def test_without_the_altered_one_the_one_before_is_resumed(run: TrainRecipe, trained: TrainRecipe) -> None:
    """To the same adapter."""
    swapped(last(run))
    with pytest.raises(UserError, match="its hash differs"):
        train(run)
    last(run).unlink()
    adapter = train(run) / "adapter_model.safetensors"
    assert adapter.read_bytes() == (Path(trained.output) / "adapter" / adapter.name).read_bytes()


def test_the_newest_checkpoint_is_of_the_highest_step(tmp_path: Path) -> None:
    """What is of no step is passed over."""
    for name in ("step-999999", "step-1000000", "step-best"):
        (tmp_path / f"{name}.ckpt").touch()
    assert latest(tmp_path) == tmp_path / "step-1000000.ckpt"


def test_a_file_in_the_checkpoints_place_is_refused_at_once(tmp_path: Path) -> None:
    """A folder in one checkpoint's place is removed."""
    (tmp_path / "run" / "step-000002.ckpt").mkdir(parents=True)
    clear(tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: cannot be written .File exists"):
        clear(tmp_path / "file")
