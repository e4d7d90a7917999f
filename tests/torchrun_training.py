"""Several recipes, one after the other, in all processes of torchrun: torchrun tests/torchrun_training.py cases.json.

The file has, by name, what scripts/train.py would be given. Errors are kept as `<name>-<rank>.txt` beside it. In a case
whose name begins with "nan", the second process's loss is not a number from the third step on.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from tale.config.recipes import load
from tale.config.training import TrainRecipe
from tale.models.modules import CausalLMModule
from tale.training.loop import NonFiniteLossError
from tale.training.run import train

RANK = int(os.environ["RANK"])


def spoil() -> None:
    """Replace the second process's loss."""
    plain, calls = CausalLMModule.training_step, iter(range(10**9))

    def spoiled(self: CausalLMModule, batch: object) -> dict[str, torch.Tensor]:
        sums = plain(self, batch)
        return sums | {"loss": sums["loss"] * (float("nan") if RANK == 1 and next(calls) >= 2 else 1.0)}

    CausalLMModule.training_step = spoiled


if __name__ == "__main__":
    file = Path(sys.argv[1])
    for name, given in json.loads(file.read_text()).items():
        step = CausalLMModule.training_step
        if name.startswith("nan"):
            spoil()
        try:
            train(load(TrainRecipe, given))
        except NonFiniteLossError as error:
            (file.parent / f"{name}-{RANK}.txt").write_text(str(error))
        CausalLMModule.training_step = step
