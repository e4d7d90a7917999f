"""Token ids to train on, and packing them into batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

from tale.data.layout import Layout


@dataclass(frozen=True)
class Example:
    """A prompt with one answer (SFT), or two (DPO: chosen, then rejected), as token ids.

    `retokenised` counts the answers without generated ids, which were tokenised from their text. `vanilla_wrong`: the
    vanilla answer is wrong.
    """

    id: str
    prompt: list[int]
    answers: tuple[list[int], ...]
    retokenised: int = 0
    vanilla_wrong: bool = False

    @property
    def length(self) -> int:
        """Tokens of the longest sequence, prompt and answer."""
        return len(self.prompt) + max(map(len, self.answers))


@dataclass(frozen=True)
class Batch:
    """Examples packed into one row of T ids without padding: the common prefix of all prompts, then each example.

    An example is the rest of its prompt, once, followed by its answers. An answer's position ids continue its prompt's,
    and its sequence in `layout` is prompt and answer. Of N target tokens, token n is predicted at position
    `sources[n]`, is `targets[n]`, and belongs to answer `answers[n]`: first every example's first answer, then, for
    DPO, every example's second.
    """

    input_ids: Tensor
    position_ids: Tensor
    layout: Layout
    sources: Tensor
    targets: Tensor
    answers: Tensor
    lengths: Tensor  # target tokens of each answer, the end token included
    ids: tuple[str, ...]

    @property
    def examples(self) -> int:
        """Examples (pairs, for DPO)."""
        return len(self.ids)

    @property
    def target_tokens(self) -> int:
        """Target tokens of all answers."""
        return len(self.targets)

    @property
    def tokens(self) -> int:
        """Ids that the model reads."""
        return len(self.input_ids)

    def to(self, device: torch.device) -> Batch:
        """On another device."""
        return Batch(
            self.input_ids.to(device),
            self.position_ids.to(device),
            self.layout.to(device),
            self.sources.to(device),
            self.targets.to(device),
            self.answers.to(device),
            self.lengths.to(device),
            self.ids,
        )


def pack(examples: Sequence[Example]) -> Batch:
    """Pack examples into one row. An answer's last id is a target but not an input, as nothing follows it.

    The common prefix of all prompts, at least a chat template's system prompt, is computed once.
    """
    prompts = zip(*(example.prompt for example in examples), strict=False)
    input_ids = [ids[0] for ids in takewhile(lambda ids: len(set(ids)) == 1, prompts)]
    common = range(len(input_ids))
    position_ids = [*common]
    sequences: list[list[int]] = []  # positions of each prompt and answer
    sources: list[list[int]] = [[] for _ in range(len(examples) * len(examples[0].answers))]
    targets: list[list[int]] = [[] for _ in sources]
    for i, example in enumerate(examples):
        rest = example.prompt[len(common) :]
        prompt = [*common, *range(len(input_ids), len(input_ids) + len(rest))]
        input_ids += rest
        position_ids += range(len(common), len(prompt))
        for side, answer in enumerate(example.answers):
            read = range(len(input_ids), len(input_ids) + len(answer) - 1)
            input_ids += answer[:-1]
            position_ids += range(len(prompt), len(prompt) + len(read))
            sequences.append([*prompt, *read])
            sources[side * len(examples) + i] = [prompt[-1], *read]
            targets[side * len(examples) + i] = answer
    lengths = torch.tensor([len(answer) for answer in targets])
    return Batch(
        torch.tensor(input_ids),
        torch.tensor(position_ids),
        _layout(sequences, len(input_ids)),
        torch.tensor([position for answer in sources for position in answer]),
        torch.tensor([token for answer in targets for token in answer]),
        torch.arange(len(lengths)).repeat_interleave(lengths),
        lengths,
        tuple(example.id for example in examples),
    )


def _layout(sequences: Sequence[Sequence[int]], positions: int) -> Layout:
    lengths = tuple(map(len, sequences))
    if sum(lengths) == positions:  # no prompt is shared
        return Layout(lengths)
    order = torch.tensor([position for sequence in sequences for position in sequence])
    places = torch.empty(positions, dtype=torch.long)
    places[order] = torch.arange(len(order))
    return Layout(lengths, order, places)


def micro_batches(examples: Sequence[Example], size: int) -> list[Batch]:
    """One optimizer step's examples in batches of at most `size`, balanced by length."""
    ordered = sorted(examples, key=lambda e: -e.length)
    count = -(-len(ordered) // size)
    return [pack(ordered[i::count]) for i in range(count)]
