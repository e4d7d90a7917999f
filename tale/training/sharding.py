"""FSDP2: every device keeps a shard of each parameter, and gathers a decoder layer when it is computed.

Frozen parameters are gathered in their dtype (bfloat16); adapters, their gradients and optimizer state stay in theirs
(float32): `fabric.precision=bf16-mixed` means the same arithmetic under every strategy.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from lightning import LightningModule
from lightning.fabric.strategies import ModelParallelStrategy, Strategy
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer


class FSDP2Strategy(ModelParallelStrategy):
    """FSDP2 over all devices of all machines."""

    def __init__(self) -> None:
        super().__init__(shard, tensor_parallel_size=1)

    def setup_environment(self) -> None:
        """Set the number of devices, which is known only here, as `fabric.devices` may be auto."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def strategy(name: str) -> str | Strategy:
    """Fabric's strategy by the recipe's name."""
    return FSDP2Strategy() if name == "fsdp2" else name


def shard(module: LightningModule, mesh: DeviceMesh) -> LightningModule:
    """Shard each decoder layer, then the rest: embeddings, last norm and head.

    Layers are moved to their device and sharded one by one, so that no device ever holds the whole model.
    """
    for layer in module.modules():
        if isinstance(layer, GradientCheckpointingLayer):  # the base class of transformers' decoder layers
            fully_shard(layer, mesh=mesh["data_parallel"])
    fully_shard(module, mesh=mesh["data_parallel"])
    for step in ("training_step", "validation_step"):  # which Fabric calls without going through `forward`
        register_fsdp_forward_method(module, step)
    return module


def full_tensor(value: Any) -> Any:
    """Gather a sharded tensor, to the CPU; other values are returned unchanged. All ranks call it in the same order."""
    if isinstance(value, DTensor):
        rows = value.placements == (Shard(0),)  # else a norm, of which each rank has a partial value
        value = _gathered(value) if rows else value.full_tensor()
    return value.detach().cpu() if isinstance(value, Tensor) else value


def _gathered(shard: DTensor) -> Tensor:
    """All shards by one synchronous call.

    DTensor's `full_tensor` gathers asynchronously, and over gloo a process once crashed in it.
    """
    mine, group = shard.to_local().detach(), shard.device_mesh.get_group()
    ranks = dist.get_world_size(group)
    rows = -(-len(shard) // ranks)  # of every rank, perhaps fewer on the last ones
    padded = mine.new_zeros(rows, *mine.shape[1:])
    padded[: len(mine)] = mine
    parts = [torch.empty_like(padded) for _ in range(ranks)]
    dist.all_gather(parts, padded, group=group)
    return torch.cat(parts)[: len(shard)]


def sharded_like(parameter: Tensor, value: Any) -> Any:
    """This rank's shard of `value` if it is a tensor with the shape of a sharded parameter; else `value`."""
    if isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape:
        value = value.to(parameter.device)
        return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return value
