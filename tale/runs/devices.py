"""Processes and their devices, through Lightning Fabric."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, cast

import torch
from lightning import Fabric
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from tale.config.sections import DevicesConfig
from tale.errors import UserError


def all_reduce(fabric: Fabric, values: Sequence[float], how: str = "sum") -> list[float]:
    """Reduce numbers over all processes, by default to their sum; every process must call this."""
    own = torch.tensor(values, dtype=torch.float64, device=fabric.device)
    return cast(Tensor, fabric.all_reduce(own, reduce_op=how)).tolist()


def make_fabric(config: DevicesConfig, accelerator: str, **settings: Any) -> Fabric:
    """A Fabric with the recipe's number of devices and machines, not yet launched.

    Raises:
        UserError: the devices, strategy or precision do not exist, or torchrun or SLURM started a different number of
            processes.
    """
    devices = int(config.devices) if config.devices.lstrip("-").isdigit() else config.devices
    try:
        fabric = Fabric(accelerator=accelerator, devices=devices, num_nodes=config.num_nodes, **settings)
    except (ValueError, TypeError, RuntimeError, ImportError, MisconfigurationException) as error:
        raise UserError(f"fabric: {str(error).strip().splitlines()[0]}") from error
    # Otherwise each process would act as the only one, and all would write to the same folder.
    if (started := _started()) not in (None, fabric.world_size):
        raise UserError(
            f"fabric.devices, fabric.num_nodes: they make {fabric.world_size} processes, but {started} were started; "
            "set both to the numbers that torchrun or srun was given"
        )
    return fabric


def launch(fabric: Fabric) -> None:
    """Start the other processes; a started process ends with its parent, so that none is left waiting."""
    fabric.launch()
    if fabric.local_rank > 0 or _started():
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _started() -> int | None:
    """The number of processes that torchrun or SLURM started; None if Fabric is to start them."""
    for environment in (TorchElasticEnvironment, SLURMEnvironment):
        if environment.detect():
            return environment().world_size()
    return None


def _end_with_parent(parent: int) -> None:
    """End this process when its parent has ended: otherwise it may wait in NCCL for half an hour."""
    while os.getppid() == parent:
        time.sleep(1)
    print("ended: the parent process has ended, see its error above", file=sys.stderr, flush=True)
    os._exit(1)
