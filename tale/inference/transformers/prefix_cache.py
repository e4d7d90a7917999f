"""A cache of prompts' keys and values, for prompts with the same beginning.

The prompts of one question differ only in their last words, the budget. A search asks each question several times, so
most of a prompt is cached after the first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

# Prefixes are looked up at multiples of so many ids; a prompt with no more than so many uncached ids is not added.
STEP, NEAR = 16, 32


@dataclass(frozen=True)
class Prefix:
    """Keys and values [H, W, D] of every layer, for the first columns of a prompt."""

    keys_HWD: tuple[Tensor, ...] = ()
    values_HWD: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return self.keys_HWD[0].shape[1] if self.keys_HWD else 0

    def first(self, columns: int) -> Prefix:
        """The first columns; the empty prefix for 0 or fewer."""
        if columns <= 0:
            return Prefix()
        return Prefix(tuple(k[:, :columns] for k in self.keys_HWD), tuple(v[:, :columns] for v in self.values_HWD))

    @property
    def bytes(self) -> int:
        """Its memory in bytes."""
        return sum(tensor.nbytes for tensor in (*self.keys_HWD, *self.values_HWD))


class PrefixCache:
    """Prompts by their ids, in at most `capacity` bytes; the least recently used are evicted first."""

    def __init__(self, capacity: float):
        self.capacity, self.bytes = capacity, 0
        self.prompts: OrderedDict[tuple[int, ...], Prefix] = OrderedDict()
        self.beginnings: dict[tuple[int, ...], tuple[int, ...]] = {}  # to the latest prompt with this beginning

    def find(self, prompt: tuple[int, ...]) -> Prefix:
        """A long cached prefix of a prompt, without its last id, which must be computed; it may be empty."""
        best = next((self.beginnings[begun] for begun in _beginnings(prompt) if begun in self.beginnings), None)
        if best is None:
            return Prefix()
        self.prompts.move_to_end(best)
        return self.prompts[best].first(min(_common(prompt, best), len(prompt) - 1))

    def keep(self, prompt: tuple[int, ...], known: int, columns: Callable[[], Prefix]) -> None:
        """Add a prompt's columns, unless nearly all of them, the first `known`, are cached."""
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
    """Its first 16, 32, … ids, the longest first."""
    return [prompt[:count] for count in range(len(prompt) - len(prompt) % STEP, 0, -STEP)]


def _common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """The length of two prompts' common prefix; the last id of `other` has no columns."""
    pairs = zip(one, other[:-1], strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other) - 1))
