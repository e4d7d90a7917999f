"""Keys and values of prompts that were asked before, for prompts that begin alike.

The prompts of one question differ in their last words only, the budget. A search asks each question several times, so
most of a prompt is known after the first.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

# Prompts are compared if they have so many ids in common; one that leaves no more than so many to compute is not kept.
START, NEAR = 16, 32


@dataclass(frozen=True)
class Prefix:
    """The first columns of a prompt: keys and values [H, W, D] of every layer."""

    keys_HWD: tuple[Tensor, ...] = ()
    values_HWD: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return self.keys_HWD[0].shape[1] if self.keys_HWD else 0

    def first(self, columns: int) -> Prefix:
        """Its first columns."""
        return Prefix(tuple(k[:, :columns] for k in self.keys_HWD), tuple(v[:, :columns] for v in self.values_HWD))

    @property
    def bytes(self) -> int:
        """The memory it takes."""
        return sum(tensor.nbytes for tensor in (*self.keys_HWD, *self.values_HWD))


class Prefixes:
    """Prompts by their ids, in at most `capacity` bytes; the least recently used go first."""

    def __init__(self, capacity: float):
        self.capacity, self.bytes = capacity, 0
        self.prompts: OrderedDict[tuple[int, ...], Prefix] = OrderedDict()
        self.alike: dict[tuple[int, ...], list[tuple[int, ...]]] = defaultdict(list)

    def find(self, prompt: tuple[int, ...]) -> Prefix:
        """The longest known prefix of a prompt, which leaves at least its last id to compute; perhaps an empty one."""
        alike = ((_common(prompt, other), other) for other in self.alike.get(prompt[:START], ()))
        columns, best = max(alike, key=lambda pair: pair[0], default=(0, None))
        if best is None:
            return Prefix()
        self.prompts.move_to_end(best)
        return self.prompts[best].first(min(columns, len(prompt) - 1))

    def keep(self, prompt: tuple[int, ...], known: int, columns: Callable[[], Prefix]) -> None:
        """Keep a prompt's columns, of which `known` were found here, unless those were nearly all."""
        if not self.capacity or len(prompt) - known <= NEAR or prompt in self.prompts:
            return
        self.prompts[prompt] = prefix = columns()
        self.alike[prompt[:START]].append(prompt)
        self.bytes += prefix.bytes
        while self.bytes > self.capacity:
            oldest, dropped = self.prompts.popitem(last=False)
            self.bytes -= dropped.bytes
            self.alike[oldest[:START]].remove(oldest)


def _common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many ids two prompts have in common from their beginning; the last of `other` has no columns."""
    pairs = zip(one, other[:-1], strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other) - 1))
