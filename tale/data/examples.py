"""Token ids to train on, and packing them into batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from tale.data.layout import Layout


@dataclass(frozen=True)
class Example:
    """A prompt with one answer (SFT), two (DPO: chosen, then rejected) or a group of them (GRPO), as token ids.

    `retokenised` counts the answers without generated ids, which were tokenised from their text. `vanilla_wrong`: the
    vanilla answer is wrong. Of a group, `size` is its number of answers, those without tokens included, `advantages`
    has one for each of `answers`, `logprobs` the log-probability of each of their tokens when they were sampled, and
    `sums` its part of the step's metrics.
    """

    id: str
    prompt: list[int]
    answers: tuple[list[int], ...]
    retokenised: int = 0
    vanilla_wrong: bool = False
    size: int = 1
    advantages: tuple[float, ...] = ()
    logprobs: tuple[tuple[float, ...], ...] = ()
    sums: Mapping[str, float] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Tokens of the longest sequence, prompt and answer."""
        return len(self.prompt) + max(map(len, self.answers), default=0)

    def split(self, size: int) -> list[Example]:
        """A group in parts of at most `size` answers each, about equal; another example as it is."""
        count = -(-len(self.answers) // size) if self.advantages else 1
        if count <= 1:
            return [self]
        parts = [
            replace(
                self,
                answers=self.answers[i::count],
                size=len(self.answers[i::count]),
                advantages=self.advantages[i::count],
                logprobs=self.logprobs[i::count],
                sums={},
            )
            for i in range(count)
        ]
        return [replace(parts[0], size=parts[0].size + self.size - len(self.answers), sums=self.sums), *parts[1:]]


@dataclass(frozen=True)
class Batch:
    """Examples packed into one row of T ids without padding: the common prefix of all prompts, then each example.

    An example is the rest of its prompt, once, followed by its answers. An answer's position ids continue its prompt's,
    and its sequence in `layout` is prompt and answer. Of N target tokens, token n is predicted at position
    `sources[n]`, is `targets[n]`, and belongs to answer `answers[n]`: first every example's first answer, then every
    example's second, and so on. `advantages` of each answer and `logprobs` of each target token are a group's.
    """

    input_ids: Tensor
    position_ids: Tensor
    layout: Layout
    sources: Tensor
    targets: Tensor
    answers: Tensor
    lengths: Tensor  # target tokens of each answer, the end token included
    advantages: Tensor
    logprobs: Tensor
    ids: tuple[str, ...]
    examples: int  # pairs, for DPO; answers, for GRPO
    sums: Mapping[str, float]

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
        held: dict[str, Any] = {of.name: getattr(self, of.name) for of in fields(self)}
        moves = (name for name, value in held.items() if isinstance(value, Tensor | Layout))
        return replace(self, **{name: held[name].to(device) for name in moves})


def pack(examples: Sequence[Example]) -> Batch:
    """Pack examples into one row. An answer's last id is a target but not an input, as nothing follows it.

    The common prefix of all prompts, at least a chat template's system prompt, is computed once.
    """
    prompts = zip(*(example.prompt for example in examples), strict=False)
    input_ids = [ids[0] for ids in takewhile(lambda ids: len(set(ids)) == 1, prompts)]
    common = range(len(input_ids))
    position_ids = [*common]
    sequences: list[list[int]] = []  # positions of each prompt and answer
    answers: dict[tuple[int, int], tuple[list[int], list[int]]] = {}  # sources and targets, by side and example
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
            answers[side, i] = [prompt[-1], *read], answer
    order = sorted(answers)
    sources, targets = ([answers[place][k] for place in order] for k in (0, 1))
    lengths = torch.tensor([len(answer) for answer in targets])
    scored = [(i, side) for side, i in order if examples[i].advantages]
    sums: Counter[str] = Counter()
    for example in examples:
        sums.update(example.sums)
    return Batch(
        torch.tensor(input_ids),
        torch.tensor(position_ids),
        _layout(sequences, len(input_ids)),
        torch.tensor([position for answer in sources for position in answer]),
        torch.tensor([token for answer in targets for token in answer]),
        torch.arange(len(lengths)).repeat_interleave(lengths),
        lengths,
        torch.tensor([examples[i].advantages[side] for i, side in scored]),
        torch.tensor([logprob for i, side in scored for logprob in examples[i].logprobs[side]]),
        tuple(example.id for example in examples),
        sum(example.size for example in examples),
        sums,
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
    """One optimizer step's examples in batches of at most `size`, balanced by length; a larger group is divided."""
    parts = sorted((part for example in examples for part in example.split(size)), key=lambda part: -part.length)
    each = max(1, size // max((len(part.advantages) or 1 for part in parts), default=1))
    count = -(-len(parts) // each)
    return [pack(parts[i::count]) for i in range(count)]
