"""Token ids to train on, and how they become a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tale.losses.logprobs import IGNORE


@dataclass(frozen=True)
class Example:
    """A prompt with one answer (SFT), or two (DPO: the chosen, then the rejected one), as token ids."""

    id: str
    prompt: list[int]
    answers: tuple[list[int], ...]

    @property
    def length(self) -> int:
        """Tokens of the longest row, prompt and answer."""
        return len(self.prompt) + max(map(len, self.answers))


@dataclass(frozen=True)
class Batch:
    """Rows of equal width: first every example's first answer, then, for DPO, every example's second.

    `labels[:, t]` is what `input_ids[:, t]` is to predict: the next id where that is an answer's, else `IGNORE`.
    """

    input_ids: Tensor
    labels: Tensor
    ids: tuple[str, ...]

    @property
    def examples(self) -> int:
        """Examples (pairs, for DPO)."""
        return len(self.ids)

    @property
    def lengths(self) -> Tensor:
        """Answer tokens of each row, the end-of-sequence one included."""
        return (self.labels != IGNORE).sum(dim=1)

    @property
    def targets(self) -> int:
        """Answer tokens of all rows."""
        return int(self.lengths.sum())

    @property
    def tokens(self) -> int:
        """Prompt and answer tokens of all rows, padding left out."""
        positions = torch.arange(self.labels.shape[1], device=self.labels.device)
        last = torch.where(self.labels != IGNORE, positions, 0).amax(dim=1)
        return int((last + 2).sum())  # from 0, and the last answer token is a label alone

    def to(self, device: torch.device) -> Batch:
        """On another device."""
        return Batch(self.input_ids.to(device), self.labels.to(device), self.ids)


def collate(examples: Sequence[Example], pad_id: int = 0) -> Batch:
    """Right-pad to the longest row. Masked by length, never by id: the pad id may be the end-of-sequence id."""
    rows = [(e.prompt, e.answers[side]) for side in range(len(examples[0].answers)) for e in examples]
    width = max(len(prompt) + len(answer) for prompt, answer in rows) - 1
    input_ids = torch.full((len(rows), width), pad_id)
    labels = torch.full((len(rows), width), IGNORE)
    for row, (prompt, answer) in enumerate(rows):
        ids = torch.tensor(prompt + answer)
        input_ids[row, : len(ids) - 1] = ids[:-1]
        labels[row, len(prompt) - 1 : len(ids) - 1] = ids[len(prompt) :]
    return Batch(input_ids, labels, tuple(e.id for e in examples))


def micro_batches(examples: Sequence[Example], size: int) -> list[Batch]:
    """One optimizer step's examples in batches of at most `size`, alike in length so that little is padding."""
    ordered = sorted(examples, key=lambda e: -e.length)
    return [collate(ordered[i : i + size]) for i in range(0, len(ordered), size)]
