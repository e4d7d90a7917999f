"""What is allocated, from when until when: every tensor storage that is made while a ledger is on, real or fake."""

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
class Entry:
    """One storage. `born` and `died` count the ledger's events; `width` is the last dimension it was made with."""

    bytes: int
    width: int
    floating: bool
    born: int
    died: int | None = None
    kind: str | None = None

    def alive(self, at: int) -> bool:
        """Whether it is held after event `at`."""
        return self.born <= at and (self.died is None or self.died > at)


class Ledger(TorchDispatchMode):
    """Writes down each storage as it is made and as it is let go.

    What an operator allocates inside itself does not show, but for those in `hidden_bytes`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Entry] = []
        self.events: list[int] = []  # bytes more, bytes less
        self._open: dict[int, tuple[weakref.ref, Entry]] = {}

    @property
    def now(self) -> int:
        """The newest event."""
        return len(self.events) - 1

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if hidden := hidden_bytes(func, args):
            self._end(self._begin(Entry(hidden, 0, True, 0)))
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._note(tensor)
        return result

    def label(self, tensors: Iterable[Tensor], kind: str) -> None:
        """Say what these tensors' storages are; those that were made before the ledger was on count from now on."""
        for tensor in tensors:
            self._note(tensor).kind = kind

    def peak(self, first: int = 0) -> int:
        """The event, from `first` on, after which most bytes are held."""
        held, most, at = 0, -1, first
        for i, change in enumerate(self.events):
            held += change
            if i >= first and held > most:
                most, at = held, i
        return at

    def held(self, at: int) -> list[Entry]:
        """What is held after event `at`."""
        return [entry for entry in self.entries if entry.alive(at)]

    def by_kind(self, at: int) -> Counter[str]:
        """Bytes held after event `at`, by label."""
        sums: Counter[str] = Counter()
        for entry in self.held(at):
            sums[entry.kind or ""] += entry.bytes
        return sums

    def _note(self, tensor: Tensor) -> Entry:
        storage = tensor.untyped_storage()
        key = storage._cdata
        known = self._open.get(key)
        if known and known[0]() is storage:
            return known[1]
        width = tensor.shape[-1] if tensor.ndim else 1
        entry = self._begin(Entry(storage.nbytes(), width, tensor.is_floating_point(), 0))
        self._open[key] = (weakref.ref(storage, lambda _: self._close(key, entry)), entry)
        return entry

    def _close(self, key: int, entry: Entry) -> None:
        if key in self._open and self._open[key][1] is entry:
            del self._open[key]
        self._end(entry)

    def _begin(self, entry: Entry) -> Entry:
        self.events.append(entry.bytes)
        entry.born = self.now
        self.entries.append(entry)
        return entry

    def _end(self, entry: Entry) -> None:
        self.events.append(-entry.bytes)
        entry.died = self.now


def hidden_bytes(func: Any, args: tuple) -> int:
    """Bytes that an operator takes and gives back within itself: a 4-bit product holds its weight dequantised."""
    if func.name() == "bitsandbytes::gemm_4bit":
        inputs, shape = args[0], args[2]
        return shape[0] * shape[1] * inputs.element_size()
    return 0
