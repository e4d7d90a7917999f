"""The benchmarks' own sides from their command lines to their tables, in this process, on the tiny model."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import training_ablations
import training_speed
import training_steps
from handmade import pairs

from tale.records import write_records


@pytest.fixture
def words(tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command line's words for the tiny model, in a folder of its own; memory is not limited."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training_steps, "limit_memory", lambda: None)
    write_records(tmp_path / "records.jsonl", pairs(6))
    return [
        f"model.source={tiny_model_folder}", "model.name=tiny-llama", "model.merge=null",
        f"data.records=[{tmp_path}/records.jsonl]", "train.batch_size=4", "train.micro_batch=2",
    ]  # fmt: skip


def in_process(side: Callable[..., None], capsys: pytest.CaptureFixture) -> Callable[..., dict]:
    def child(_: str, *arguments: str) -> dict:
        side(*arguments)
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return child


@pytest.mark.parametrize("case", ["sft", "dpo_reference"])
def test_this_codes_side_of_the_training_speed(words: list[str], case: str, capsys: pytest.CaptureFixture) -> None:
    training_speed.one_side("tale", case, "1", *words)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(figures["loss"]) == 2
    assert figures["seconds"][0] > 0
    assert figures["peak_gb"] > 0
    assert 0 < figures["share_of_peak"][0] < 2


def test_both_sides_of_the_training_speed_agree(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("trl")
    monkeypatch.setattr(training_speed, "child", in_process(training_speed.one_side, capsys))
    monkeypatch.setattr(sys, "argv", ["training_speed", "rounds=1", "steps=1", "cases=sft", "sizes=2", *words])
    training_speed.main()
    assert (
        json.loads(Path("runs/benchmarks/training_speed.json").read_text())["sft"]["largest difference of losses"]
        < 0.01
    )


def test_the_training_ablations_end_in_their_table(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(training_ablations, "child", in_process(training_ablations.one_variant, capsys))
    chosen = ["rounds=1", "steps=1", "cases=dpo", "variants=whole_head,padded,unshared"]
    monkeypatch.setattr(sys, "argv", ["training_ablations", *chosen, *words])
    training_ablations.main()
    assert "padded" in capsys.readouterr().out
    rows = json.loads(Path("runs/benchmarks/training_ablations.json").read_text())["dpo"]
    assert rows.keys() == {"as_it_is", "whole_head", "padded", "unshared"}
    assert all(row["largest difference of margin"] < 0.01 for row in rows.values())
