"""A cache of keys and values by ids, for prompts with the same beginning and for answers that are continued.

The prompts of one question differ only in their last words, the budget, and an open turn begins with what was generated
before. So most of a prompt is cached after the first call of its question.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Prefix:
    """Keys and values [H, W, D] of every layer, for the first columns of a prompt."""

    keys_HWD: tuple[Tensor, ...] = ()
    values_HWD: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return self.keys_HWD[0].shape[1] if self.keys_HWD else 0

    def part(self, start: int, end: int | None = None) -> Prefix:
        """These columns, as views."""
        return Prefix(tuple(k[:, start:end] for k in self.keys_HWD), tuple(v[:, start:end] for v in self.values_HWD))

    def copy(self) -> Prefix:
        """The same columns in memory of their own."""
        return Prefix(tuple(k.clone() for k in self.keys_HWD), tuple(v.clone() for v in self.values_HWD))

    @classmethod
    def joined(cls, parts: Sequence[Prefix]) -> Prefix:
        """The columns of all parts, one after the other."""
        if len(parts) < 2:
            return parts[0] if parts else cls()
        both = ([part.keys_HWD for part in parts], [part.values_HWD for part in parts])
        return cls(*(tuple(torch.cat(layers, dim=1) for layers in zip(*of, strict=True)) for of in both))

    @property
    def bytes(self) -> int:
        """Its memory in bytes."""
        return sum(tensor.nbytes for tensor in (*self.keys_HWD, *self.values_HWD))


@dataclass(eq=False)
class _Node:
    """Columns of all sequences with this beginning; `children`, by their first id, have the columns after these."""

    ids: tuple[int, ...] = ()
    columns: Prefix = field(default_factory=Prefix)
    parent: _Node | None = None
    children: dict[int, _Node] = field(default_factory=dict)


class PrefixCache:
    """A tree of sequences, in at most `capacity` bytes; what is least recently used is evicted first, from the ends."""

    def __init__(self, capacity: float):
        self.capacity, self.bytes = capacity, 0
        self.root = _Node()
        # The least recently used node is first. A node is used whenever one of its children is, and follows it here, so
        # that the first one has no children.
        self.nodes: OrderedDict[_Node, None] = OrderedDict()

    def count(self, prompt: Sequence[int]) -> int:
        """The number of cached columns with which a prompt begins, without its last id, which must be computed."""
        return sum(used for _, used in self._path(prompt[:-1]))

    def find(self, prompt: Sequence[int]) -> Prefix:
        """The cached columns with which a prompt begins, without its last id; it may be empty."""
        path = self._path(prompt[:-1])
        self._touch([node for node, _ in path])
        return Prefix.joined([node.columns.part(0, used) for node, used in path])

    def keep(self, ids: Sequence[int], columns: Callable[[int], Prefix]) -> None:
        """Add a sequence; `columns(n)` copies its columns but for the first n, which are cached."""
        if not self.capacity:
            return
        path = self._path(ids)
        nodes, known = [node for node, _ in path], sum(used for _, used in path)
        if known < len(ids):
            if nodes and path[-1][1] < len(nodes[-1].ids):
                nodes[-1] = self._split(*path[-1])
            above = nodes[-1] if nodes else self.root
            nodes.append(_Node(tuple(ids[known:]), columns(known), above))
            above.children[ids[known]] = nodes[-1]
            self.nodes[nodes[-1]] = None
            self.bytes += nodes[-1].columns.bytes
        self._touch(nodes)
        while self.bytes > self.capacity:
            self._evict()

    def _path(self, ids: Sequence[int]) -> list[tuple[_Node, int]]:
        """The nodes that a sequence begins with, and how many of their columns: all, but for the last node."""
        path, node, done = [], self.root, 0
        while done < len(ids) and (child := node.children.get(ids[done])):
            used = _common(child.ids, ids[done : done + len(child.ids)])
            path.append((child, used))
            if used < len(child.ids):
                break
            node, done = child, done + used
        return path

    def _split(self, node: _Node, at: int) -> _Node:
        """Give the first columns of a node a node of their own above it, and return that."""
        assert node.parent
        upper = _Node(node.ids[:at], node.columns.part(0, at).copy(), node.parent, {node.ids[at]: node})
        node.parent.children[upper.ids[0]] = upper
        node.ids, node.columns, node.parent = node.ids[at:], node.columns.part(at).copy(), upper
        self.nodes[upper] = None
        return upper

    def _touch(self, path: Sequence[_Node]) -> None:
        """Note that these nodes, from the root on, are the latest used."""
        for node in reversed(path):
            self.nodes.move_to_end(node)

    def _evict(self) -> None:
        node, _ = self.nodes.popitem(last=False)
        assert node.parent
        assert not node.children
        del node.parent.children[node.ids[0]]
        self.bytes -= node.columns.bytes


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of two sequences' common beginning."""
    if one == other:
        return len(one)
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
