"""A log of allocations: every tensor storage, real or fake, from its creation to its release."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass
class Allocation:
    """One storage. `born` and `died` are indices of the log's events; `width` is its tensor's last dimension."""

    bytes: int
    width: int
    floating: bool
    born: int
    died: int | None = None
    kind: str | None = None

    def alive(self, at: int) -> bool:
        """Whether it is allocated after event `at`."""
        return self.born <= at and (self.died is None or self.died > at)


class AllocationLog(TorchDispatchMode):
    """Logs the allocation and the release of each storage.

    Allocations inside an operator are not logged, except those in `hidden_bytes`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Allocation] = []
        self.events: list[int] = []  # bytes allocated, or released if negative
        self._open: dict[int, tuple[weakref.ref, Allocation]] = {}

    @property
    def now(self) -> int:
        """The latest event."""
        return len(self.events) - 1

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if hidden := hidden_bytes(func, args):
            self._end(self._begin(Allocation(hidden, 0, True, 0)))
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._note(tensor)
        return result

    def label(self, tensors: Iterable[Tensor], kind: str) -> None:
        """Label these tensors' storages; those created before the log count from now on."""
        for tensor in tensors:
            self._note(tensor).kind = kind

    def peak(self, first: int = 0) -> int:
        """The event, from `first` on, after which most bytes are allocated."""
        held, most, at = 0, -1, first
        for i, change in enumerate(self.events):
            held += change
            if i >= first and held > most:
                most, at = held, i
        return at

    def held(self, at: int) -> list[Allocation]:
        """The storages that are allocated after event `at`."""
        return [entry for entry in self.entries if entry.alive(at)]

    def by_kind(self, at: int) -> Counter[str]:
        """Bytes allocated after event `at`, by label."""
        sums: Counter[str] = Counter()
        for entry in self.held(at):
            sums[entry.kind or ""] += entry.bytes
        return sums

    def _note(self, tensor: Tensor) -> Allocation:
        storage = tensor.untyped_storage()
        key = storage._cdata
        known = self._open.get(key)
        if known and known[0]() is storage:
            return known[1]
        width = tensor.shape[-1] if tensor.ndim else 1
        entry = self._begin(Allocation(storage.nbytes(), width, tensor.is_floating_point(), 0))
        self._open[key] = (weakref.ref(storage, lambda _: self._close(key, entry)), entry)
        return entry

    def _close(self, key: int, entry: Allocation) -> None:
        if key in self._open and self._open[key][1] is entry:
            del self._open[key]
        self._end(entry)

    def _begin(self, entry: Allocation) -> Allocation:
        self.events.append(entry.bytes)
        entry.born = self.now
        self.entries.append(entry)
        return entry

    def _end(self, entry: Allocation) -> None:
        self.events.append(-entry.bytes)
        entry.died = self.now


def hidden_bytes(func: Any, args: tuple) -> int:
    """Bytes that an operator allocates and releases internally: a 4-bit product dequantises its weight."""
    if func.name() == "bitsandbytes::gemm_4bit":
        inputs, shape = args[0], args[2]
        return shape[0] * shape[1] * inputs.element_size()
    return 0
