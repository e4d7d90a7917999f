"""Running real code without its memory: floating tensors are fake, of a shape and a type; integers are real.

Token ids, labels, lengths and masks are small, and code asks for their values: where targets are, how many there are.
So they are computed, and only what is floating, weights and activations, is not.
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

from tale.memory.ledger import Ledger


@contextmanager
def pretended() -> Iterator[Ledger]:
    """Within it, tensors are made without memory; the ledger that is given says what they would have taken."""
    with FakeTensorMode() as fake, IntegersAreReal(fake), Ledger() as ledger:
        yield ledger


class IntegersAreReal(TorchDispatchMode):
    """Inside a `FakeTensorMode`: what follows from integers alone, and is no floating tensor, is computed."""

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
    """A real mask that indexes a fake tensor, as the positions where it is true: their number is known."""
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
