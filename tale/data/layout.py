"""The layout of several sequences packed into one row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Shape suffixes: T positions of the row, S positions of its sequences concatenated.


@dataclass(frozen=True)
class Layout:
    """The sequences of a packed row; each attends only to itself, causally.

    `order_S` lists the row's positions, sequence after sequence. A prefix that sequences share is in the row once, and
    in `order_S` for each of them. The attention output of position t of the row is at index `places_T[t]`. Both are
    None if the row is its sequences concatenated.
    """

    lengths: tuple[int, ...]
    order_S: Tensor | None = None
    places_T: Tensor | None = None

    def to(self, device: torch.device) -> Layout:
        """On another device."""
        if self.order_S is None or self.places_T is None:
            return self
        return Layout(self.lengths, self.order_S.to(device), self.places_T.to(device))
