"""A tree of reasoning steps, with the value of each node and its part of the budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from tale.data.prompts import Message
from tale.solvers.base import Call


@dataclass(eq=False)
class Node:
    """A step after those of its parents. `messages`: the conversation up to its end; `call`: what generated it.

    `reward` is R(n). An `open` node may be expanded, and one that ends the turn or has an `answer` may not.
    """

    messages: tuple[Message, ...]
    call: Call | None = None
    depth: int = 0
    answer: str | None = None
    open: bool = True
    reward: Fraction = Fraction(0)
    children: list[Node] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The reasoning up to its end."""
        return self.call.text if self.call else ""

    def value(self, discount: Fraction) -> Fraction:
        """V(n) = R(n) + γ max V(child); without children R(n)."""
        return self.reward + discount * max((child.value(discount) for child in self.children), default=0)

    def leaves(self, discount: Fraction, gained: Fraction = Fraction(0), depth: int = 0) -> Iterator[tuple]:
        """Each leaf with its path's value Σ γ^d R, whose maximum is V of the root."""
        gained += discount**depth * self.reward
        if not self.children:
            yield gained, self
        for child in self.children:
            yield from child.leaves(discount, gained, depth + 1)


def shares(node: Node, tokens: Fraction, discount: Fraction) -> list[tuple[Node, Fraction]]:
    """The open nodes with their parts of `tokens`: each child gets B · V(n_i) / Σ_j V(n_j) of its parent's part.

    Children without an open node get nothing. If all values are 0, the parts are equal.
    """
    if not node.children:
        return [(node, tokens)] if node.open else []
    live = [child for child in node.children if any(leaf.open for _, leaf in child.leaves(discount))]
    values = [child.value(discount) for child in live]
    total = sum(values)
    parts = [tokens * value / total if total else tokens / len(live) for value in values]
    return [share for child, part in zip(live, parts, strict=True) for share in shares(child, part, discount)]


def probabilities(values: Sequence[float], left: float) -> list[float]:
    """BAVT's probabilities of expansion, ∝ V^(1/r) with r the share of the budget `left`; equal if all values are 0."""
    highest = max(values)
    weights = [(value / highest) ** (1 / left) if highest else 1.0 for value in values]
    return [weight / sum(weights) for weight in weights]
