"""Keys and values of prompts that were asked before, for prompts with the same beginning.

The prompts of one question differ in their last words only, the budget. A search asks each question several times, so
most of a prompt is known after the first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

# Beginnings are looked up in steps of so many ids; a prompt that leaves no more than so many to compute is not kept.
STEP, NEAR = 16, 32


@dataclass(frozen=True)
class Prefix:
    """The first columns of a prompt: keys and values [H, W, D] of every layer."""

    keys_HWD: tuple[Tensor, ...] = ()
    values_HWD: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return self.keys_HWD[0].shape[1] if self.keys_HWD else 0

    def first(self, columns: int) -> Prefix:
        """Its first columns; none of them is the empty prefix."""
        if columns <= 0:
            return Prefix()
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
        self.beginnings: dict[tuple[int, ...], tuple[int, ...]] = {}  # and the prompt last kept that begins so

    def find(self, prompt: tuple[int, ...]) -> Prefix:
        """A long known prefix of a prompt, which leaves at least its last id to compute; perhaps an empty one."""
        best = next((self.beginnings[begun] for begun in _beginnings(prompt) if begun in self.beginnings), None)
        if best is None:
            return Prefix()
        self.prompts.move_to_end(best)
        return self.prompts[best].first(min(_common(prompt, best), len(prompt) - 1))

    def keep(self, prompt: tuple[int, ...], known: int, columns: Callable[[], Prefix]) -> None:
        """Keep a prompt's columns, of which `known` were found here, unless those were nearly all."""
        if not self.capacity or len(prompt) - known <= NEAR or prompt in self.prompts:
            return
        self.prompts[prompt] = prefix = columns()
        self.beginnings.update(dict.fromkeys(_beginnings(prompt), prompt))
        self.bytes += prefix.bytes
        while self.bytes > self.capacity:
            oldest, dropped = self.prompts.popitem(last=False)
            self.bytes -= dropped.bytes
            for begun in _beginnings(oldest):
                if self.beginnings.get(begun) == oldest:
                    del self.beginnings[begun]


def _beginnings(prompt: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Of 16, 32, … ids, the longest first."""
    return [prompt[:count] for count in range(len(prompt) - len(prompt) % STEP, 0, -STEP)]


def _common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many ids two prompts have in common from their beginning; the last of `other` has no columns."""
    pairs = zip(one, other[:-1], strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other) - 1))
