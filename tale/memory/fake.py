"""Running code with fake tensors: floating-point tensors have only shape and dtype; integer tensors are real.

Token ids, labels, lengths and masks are small, and the code needs their values: where targets are, how many there are.
So they are computed, unlike weights and activations.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from tale.memory.allocations import AllocationLog


@contextmanager
def fake_execution() -> Iterator[AllocationLog]:
    """Context in which tensors take no memory; yields the log of the allocations that they would have made."""
    with FakeTensorMode() as fake, IntegersAreReal(fake), AllocationLog() as ledger:
        yield ledger


class IntegersAreReal(TorchDispatchMode):
    """Inside a `FakeTensorMode`: results that depend only on integer tensors, and are not floating, are computed."""

    def __init__(self, fake: FakeTensorMode):
        super().__init__()
        self.fake = fake

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if any(isinstance(tensor, FakeTensor) for tensor in tensors):
            return func(*self._faked(_as_positions(func, args)), **self._faked(kwargs))
        try:
            result = func(*self._faked(args), **self._faked(kwargs))
            if any(isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in tree_leaves(result)):
                return result
        except (DataDependentOutputException, DynamicOutputShapeException):
            pass
        with unset_fake_temporarily():
            return func(*args, **kwargs)

    def _faked(self, values: Any) -> Any:
        return tree_map_only(
            Tensor, lambda t: t if isinstance(t, FakeTensor) else self.fake.from_tensor(t, static_shapes=True), values
        )


def _as_positions(func: Any, args: tuple) -> tuple:
    """Replace a real mask that indexes a fake tensor by the positions where it is true, whose number is known."""
    if func.overloadpacket not in (
        torch.ops.aten.index,
        torch.ops.aten.index_put,
        torch.ops.aten.index_put_,
        torch.ops.aten._index_put_impl_,
        torch.ops.aten._unsafe_index_put,
    ):
        return args
    positions: list[Tensor | None] = []
    for index in args[1]:
        if index is not None and index.dtype == torch.bool and not isinstance(index, FakeTensor):
            with unset_fake_temporarily():
                positions += index.nonzero().unbind(1)
        else:
            positions.append(index)
    return (args[0], positions, *args[2:])
