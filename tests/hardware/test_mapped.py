"""What the process holds of mapped checkpoint files."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tale.hardware.mapped import release_mapped_weights
from tale.inference.transformers import linear

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc/PID/smaps is Linux's")


def mapped(file: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """These tensors, written to the file and mapped."""
    save_file(tensors, file)
    with safe_open(file, framework="pt") as content:
        return {name: content.get_tensor(name) for name in tensors}


def resident(file: Path) -> float:
    """MiB of the file's mapping that are in memory."""
    return sum(part.rss for part in psutil.Process().memory_maps(grouped=False) if part.path == str(file)) / 2**20


def test_a_mapping_that_was_not_written_to_is_released(tmp_path: Path) -> None:
    weight = torch.randn(2**20)
    read = mapped(tmp_path / "w.safetensors", {"w": weight})["w"]
    torch.testing.assert_close(read, weight, rtol=0, atol=0)
    assert resident(tmp_path / "w.safetensors") >= 4
    release_mapped_weights()
    assert resident(tmp_path / "w.safetensors") == 0
    torch.testing.assert_close(read, weight, rtol=0, atol=0)
    read[0] = 7
    release_mapped_weights()
    assert read[0] == 7
    torch.testing.assert_close(read[1:], weight[1:], rtol=0, atol=0)


def test_prepacking_leaves_no_weight_in_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "MAPPED", 2**22)
    weights = {name: torch.randn(1024, 1024) for name in "abcdefgh"}
    layers = nn.ModuleDict({name: nn.Linear(1024, 1024, bias=False) for name in weights})
    layers.load_state_dict(
        {f"{name}.weight": one for name, one in mapped(tmp_path / "w.safetensors", weights).items()}, assign=True
    )
    given = torch.randn(3, 1024)
    wanted = {name: given @ weights[name].T for name in weights}
    held = []

    def release() -> None:
        held.append(resident(tmp_path / "w.safetensors"))
        release_mapped_weights()

    monkeypatch.setattr(linear, "release_mapped_weights", release)
    linear.prepack_linear(layers)
    assert len(held) == 8
    assert max(held) < 17  # MiB of 32; what the system reads ahead counts, too
    assert resident(tmp_path / "w.safetensors") == 0
    for name, layer in layers.items():
        torch.testing.assert_close(layer(given), wanted[name], rtol=1e-3, atol=1e-3)
