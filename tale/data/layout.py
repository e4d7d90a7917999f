"""Several sequences in one row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Shape suffixes: T positions of the row, S places of its sequences one after the other.


@dataclass(frozen=True)
class Layout:
    """Which positions of a row make up its sequences; each attends to itself alone, causally.

    `order_S` lists them, sequence after sequence. What several sequences begin with stands once in the row and for each
    of them in `order_S`. Position t of the row takes what attention gives at place `places_T[t]`. Both are None where
    the row is its sequences one after the other.
    """

    lengths: tuple[int, ...]
    order_S: Tensor | None = None
    places_T: Tensor | None = None

    def to(self, device: torch.device) -> Layout:
        """On another device."""
        if self.order_S is None or self.places_T is None:
            return self
        return Layout(self.lengths, self.order_S.to(device), self.places_T.to(device))
