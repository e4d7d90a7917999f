"""FSDP2: every device keeps a share of each parameter, and gathers a decoder layer when it is computed.

Frozen parameters are gathered in their own type (bfloat16), adapters, their gradients and their optimizer's state stay
in theirs (float32): `fabric.precision=bf16-mixed` means the same arithmetic under every strategy.
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
    """Shards over all devices of all machines."""

    def __init__(self) -> None:
        super().__init__(shard, tensor_parallel_size=1)

    def setup_environment(self) -> None:
        """Their number is known only here, where `fabric.devices` may be auto."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def strategy(name: str) -> str | Strategy:
    """Fabric's strategy for `fabric.strategy`."""
    return FSDP2Strategy() if name == "fsdp2" else name


def shard(module: LightningModule, mesh: DeviceMesh) -> LightningModule:
    """Shard each decoder layer, then what is left: embeddings, last norm and head.

    A layer is moved to its device and sharded before the next one is, so that no device ever holds the whole model.
    """
    for layer in module.modules():
        if isinstance(layer, GradientCheckpointingLayer):  # what transformers makes of every decoder layer
            fully_shard(layer, mesh=mesh["data_parallel"])
    fully_shard(module, mesh=mesh["data_parallel"])
    for step in ("training_step", "validation_step"):  # which Fabric calls without going through `forward`
        register_fsdp_forward_method(module, step)
    return module


def whole(value: Any) -> Any:
    """A tensor in full, on the CPU, if it is a shard of one: every rank must call this, in the same order."""
    if isinstance(value, DTensor):
        rows = value.placements == (Shard(0),)  # else a norm, which each rank has a part of
        value = _gathered(value) if rows else value.full_tensor()
    return value.detach().cpu() if isinstance(value, Tensor) else value


def _gathered(shard: DTensor) -> Tensor:
    """All shards by one call that returns when they are there.

    `full_tensor` gathers asynchronously, and over gloo a process was once seen to crash in it.
    """
    mine, group = shard.to_local().detach(), shard.device_mesh.get_group()
    ranks = dist.get_world_size(group)
    rows = -(-len(shard) // ranks)  # of every rank but perhaps the last ones
    padded = mine.new_zeros(rows, *mine.shape[1:])
    padded[: len(mine)] = mine
    parts = [torch.empty_like(padded) for _ in range(ranks)]
    dist.all_gather(parts, padded, group=group)
    return torch.cat(parts)[: len(shard)]


def sharded_like(parameter: Tensor, value: Any) -> Any:
    """This rank's shard of `value`, where it is a tensor of the shape of a parameter that is sharded."""
    if isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape:
        value = value.to(parameter.device)
        return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return value
