"""Training that ends badly, in its own process: python tests/failing_training.py <how> <arguments of scripts/train.py>.

`raises 0`, `killed 1`: at the third step process 0 raises an error, or process 1 is killed; the other waits for ever.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from tale.config.recipes import load
from tale.config.training import TrainRecipe
from tale.storage import files
from tale.training import loop
from tale.training.run import train


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(given: Sequence[str], steps: int, writing: bool) -> None:
    """Train until `steps` more steps are computed, or this many checkpoints are about to count, and be killed there."""
    calls, train_step, replace = count(1), loop.train_step, os.replace

    def stepped(*arguments: object) -> dict[str, float]:
        metrics = train_step(*arguments)
        return die() if next(calls) == steps else metrics

    def replaced(source: Path, target: Path) -> None:
        if target.suffix == ".ckpt" and next(calls) == steps:
            die()
        replace(source, target)

    if writing:
        files.os.replace = replaced
    else:
        loop.train_step = stepped
    train(load(TrainRecipe, [*given]))


def stuck(how: str, rank: int) -> None:
    """At the third step this rank fails; the others wait as they would for a collective that never ends."""
    calls, train_step = count(), loop.train_step

    def stepped(fabric: object, *arguments: object) -> dict[str, float]:
        if next(calls) < 2:
            return train_step(fabric, *arguments)
        print(f"\nprocess {os.getpid()}", file=sys.stderr, flush=True)
        if fabric.global_rank != rank:
            time.sleep(600)
        if how == "killed":
            die()
        raise OSError("the disk is on fire")

    loop.train_step = stepped


if __name__ == "__main__":
    how, rank = sys.argv[1].split()
    stuck(how, int(rank))
    train(load(TrainRecipe, sys.argv[2:]))
