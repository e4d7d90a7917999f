"""A run that was stopped, whatever stopped it, goes on as if it had not been; or says why it cannot."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from lightning import Fabric
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tale.data.records import write_records
from tale.errors import UserError
from tale.training.run import train
from tale.training.throughput import MEASURED
from tests import failing_training
from tests.factories import arguments, pairs, recipe

# 22 examples: three steps an epoch, 24 in all. Checkpoints after every second step fall into the midst of epochs.
OPTIONS = [
    *[
        "lora.lora_dropout=0.3",
        "data.val_fraction=0.1",
        "train.global_batch_size=8",
        "train.micro_batch_size=4",
        "train.epochs=8",
    ],
    *["train.save_steps=2", "train.eval_steps=5"],
]
SHORT = ["lora.lora_dropout=0.3", "train.global_batch_size=8", "train.micro_batch_size=4", "train.max_steps=3"]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("search") / "records.jsonl"
    write_records(file, pairs(26))
    return file


def adapter(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob("*.ckpt"))


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows, but for what is measured by the clock."""
    events = EventAccumulator(str(folder))
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if "per_second" not in tag]
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}


@pytest.mark.slow
def test_a_run_killed_at_ten_steps_is_the_uninterrupted_one(tiny_model_folder, records, tmp_path) -> None:
    """To the byte, with dropout: killed after a step, or when a checkpoint is written and does not count yet."""
    train(recipe(tiny_model_folder, tmp_path / "whole", records, "sft", *OPTIONS))

    given = [*arguments(tiny_model_folder, tmp_path / "cut", records, "sft", *OPTIONS), "resume=auto"]
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["__main__", "tests.failing_training"])
    chance = random.Random(0)
    reached = []
    for kill in range(10):
        writing = kill % 3 == 2
        process = processes.Process(
            target=failing_training.killed, args=(given, 2 if writing else chance.randint(1, 5), writing)
        )
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        reached += [file.name for file in checkpoints(tmp_path / "cut")[-1:]]
        drafts = [*(tmp_path / "cut" / "checkpoints").glob(".step-*.tmp")]
        assert drafts or not writing
        time.sleep(1)  # TensorBoard orders a run's files by the second they were begun in
    assert len({*reached}) >= 5
    assert reached[-1] < "step-000024.ckpt"
    train(recipe(tiny_model_folder, tmp_path / "cut", records, "sft", *OPTIONS, "resume=auto"))

    assert adapter(tmp_path / "cut") == adapter(tmp_path / "whole")
    # Step by step, and what was logged before a kill and again after it shows once.
    whole, cut = scalars(tmp_path / "whole"), scalars(tmp_path / "cut")
    for tag in whole.keys() - {f"train/{name}" for name in MEASURED}:
        if tag.startswith("train/"):
            assert cut[tag] == whole[tag], tag
    assert {*cut["val/loss"]} > {*whole["val/loss"]}  # and where it went on
    assert len({loss for _, loss in whole["train/loss"]}) == 24
    assert not [*(tmp_path / "cut" / "checkpoints").glob(".step-*.tmp")]


@pytest.mark.parametrize("kind", ["adamw", "adamw_8bit"])
def test_without_the_newest_checkpoint_the_result_is_the_same(
    tiny_model_folder: Path, records: Path, tmp_path: Path, capsys, kind: str
) -> None:
    """At rank 128 an adapter's matrix has 4,096 elements, which is what 8-bit AdamW holds in 8 bits."""
    made = recipe(tiny_model_folder, tmp_path / "run", records, "sft", *SHORT, f"optimizer.name={kind}", "lora.r=128")
    train(made)
    whole = adapter(tmp_path / "run")
    checkpoints(tmp_path / "run")[-1].unlink()
    shutil.rmtree(tmp_path / "run" / "adapter")
    made.resume = "auto"
    capsys.readouterr()
    train(made)
    assert "resume=auto: resumes from " in (said := capsys.readouterr().out)
    assert "step-000002.ckpt" in said
    assert adapter(tmp_path / "run") == whole


def test_a_finished_run_without_checkpoints_is_not_retrained(
    tiny_model_folder: Path, records: Path, tmp_path: Path, capsys
) -> None:
    made = recipe(tiny_model_folder, tmp_path / "run", records, "sft", *SHORT, "resume=auto")
    train(made)
    assert "resume=auto: resumes from step 0, there is no checkpoint" in capsys.readouterr().out
    whole = adapter(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(UserError, match="there is no checkpoint, but the run has written its adapter; resume=null"):
        train(made)
    assert adapter(tmp_path / "run") == whole


def test_another_adapter_to_begin_from_is_refused(tiny_model_folder: Path, records: Path, tmp_path: Path) -> None:
    """The same folder, trained again at another learning rate between the run and its continuation."""
    first, begun = tmp_path / "first", f"lora.init_from={tmp_path}/first/adapter"
    train(recipe(tiny_model_folder, first, records, "sft", *SHORT))
    made = recipe(tiny_model_folder, tmp_path / "run", records, "sft", *SHORT, begun)
    train(made)
    train(recipe(tiny_model_folder, first, records, "sft", *SHORT, "optimizer.lr=2e-3"))
    made.resume = "auto"
    with pytest.raises(UserError, match=r"step-00000.\.ckpt: written with another adapter at lora\.init_from;"):
        train(made)


class OneOfTwo(Fabric):
    """Says that it is one of two processes."""

    world_size = 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["lora.lora_dropout=0.3"], r"number of devices \(each draws its own dropout\)"),
        # 22 examples in steps of 21: the one that is left cannot be shared by two devices.
        (["lora.lora_dropout=0", "train.global_batch_size=21"], "number of steps"),
    ],
)
def test_another_world_size_is_refused_if_the_result_differs(
    tiny_model_folder: Path, records: Path, tmp_path: Path, monkeypatch, options: list[str], reason: str
) -> None:
    """Where it is not, tests/test_parallel.py goes on with one process from a checkpoint of two."""
    options = ["train.micro_batch_size=4", "train.max_steps=2", "data.val_fraction=0.1", *options]
    made = recipe(tiny_model_folder, tmp_path / "run", records, "sft", *options)
    train(made)
    made.resume = "auto"
    monkeypatch.setattr("tale.runs.devices.Fabric", OneOfTwo)
    with pytest.raises(UserError, match=rf"step-00000.\.ckpt: written with another {reason};"):
        train(made)


class FirstElsewhere(Fabric):
    """Hears from the first process that it goes on from a checkpoint, which is not on this machine."""

    def broadcast(self, obj: tuple[None, None, dict[str, str]], src: int = 0) -> tuple[None, Path, dict[str, str]]:
        return None, Path("run/checkpoints/step-000002.ckpt"), obj[2]


def test_a_process_that_sees_other_files_is_refused(
    tiny_model_folder: Path, records: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("tale.runs.devices.Fabric", FirstElsewhere)
    with pytest.raises(UserError, match="process 0 sees other checkpoints, examples or weights than the first one"):
        train(recipe(tiny_model_folder, tmp_path / "run", records, "sft", *SHORT, "resume=auto"))
    assert not (tmp_path / "run").exists()
