"""The live rows of a batch: rows leave when their answer has ended, and others take their place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from tale.inference.requests import Request
from tale.inference.transformers.prefixes import Prefix

# Shape suffixes: R rows, W columns: prompt and answer so far, what the mask leaves out is padding; H heads of width D.

ROOM = 32  # columns that a layer of the cache grows by, so that not every token copies all keys and values


class RoomyLayer(DynamicLayer):
    """A cache layer with columns to spare: the next token is written behind the last, nothing is copied.

    It forgets nothing: a model with sliding windows gets them by its mask.
    """

    keys: Tensor
    values: Tensor
    room_keys_RHWD = torch.empty(0, 0, 0, 0)  # `keys` and `values` are the first columns of these
    room_values_RHWD = torch.empty(0, 0, 0, 0)

    def update(self, key_states: Tensor, value_states: Tensor, *_, **__) -> tuple[Tensor, Tensor]:
        """Append the new columns' keys and values [R, H, new, D]; all of them are returned."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        after = before + key_states.shape[-2]
        if self.room_keys_RHWD.shape[-2] < after:
            self.room_keys_RHWD = _roomy(self.keys, key_states, after)
            self.room_values_RHWD = _roomy(self.values, value_states, after)
        self.room_keys_RHWD[:, :, before:after] = key_states
        self.room_values_RHWD[:, :, before:after] = value_states
        self.keys, self.values = self.room_keys_RHWD[:, :, :after], self.room_values_RHWD[:, :, :after]
        return self.keys, self.values

    def replace(self, keys: Tensor, values: Tensor, spare: int = 0) -> None:
        """Hold these instead, whose last `spare` columns are room."""
        self.room_keys_RHWD, self.room_values_RHWD = keys, values
        columns = keys.shape[-2] - spare
        self.keys, self.values = keys[:, :, :columns], values[:, :, :columns]

    def select(self, rows: Tensor, first: int) -> None:
        """Hold these rows alone, from a column on, with their room."""
        spare = self.room_keys_RHWD.shape[-2] - self.keys.shape[-2]
        self.replace(self.room_keys_RHWD[rows, :, first:], self.room_values_RHWD[rows, :, first:], spare)


def _roomy(held: Tensor, new: Tensor, columns: int) -> Tensor:
    rows, heads, _, width = new.shape
    room_RHWD = new.new_empty(rows, heads, columns + ROOM, width)
    if held.numel():
        room_RHWD[:, :, : held.shape[-2]] = held
    return room_RHWD


@dataclass(frozen=True)
class Prompt:
    """A request, its number, and the ids of its prompt."""

    index: int
    ids: tuple[int, ...]
    request: Request


@dataclass
class Rows:
    """Rows of prompts and their answers so far. `cache` holds keys and values of all columns but the last."""

    prompts: list[Prompt]  # what each row answers
    answers: list[list[int]]  # the ids that each row has generated
    logprobs: list[list[float]]  # of these ids, as far as anything asks for them
    generators: list[torch.Generator]  # each row's own randomness
    ids_RW: Tensor
    mask_RW: Tensor
    cache: Cache

    def __len__(self) -> int:
        return len(self.ids_RW)

    @property
    def layers(self) -> list[RoomyLayer]:
        """The cache's."""
        return cast(list[RoomyLayer], self.cache.layers)

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]], prefixes: Sequence[Prefix], device: torch.device) -> Rows:
        """Rows of prompts, each with a prefix whose keys and values are known; at least one id is not in its.

        All that have a prefix leave as many ids to compute, the others no more: padding between a prefix and the rest
        would fill a sliding window, which counts columns.
        """
        before = max(map(len, prefixes))
        rest = max(len(prompt) - len(prefix) for prompt, prefix in zip(prompts, prefixes, strict=True))
        width = before + max(1 if before else 2, rest)  # so that the cache holds something
        ids = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        cache = Cache(layer_class_to_replicate=RoomyLayer)
        layers = max(len(prefix.keys_HWD) for prefix in prefixes)
        for layer in range(layers):
            keys_RHWD = _stack([prefix.keys_HWD[layer] if prefix else None for prefix in prefixes], before)
            values_RHWD = _stack([prefix.values_HWD[layer] if prefix else None for prefix in prefixes], before)
            cache.update(keys_RHWD, values_RHWD, layer)
        return cls([], [], [], [], torch.tensor(ids, device=device), torch.tensor(mask, device=device), cache)

    def columns(self, row: int) -> Prefix:
        """A copy of what the cache holds of this row."""
        mine = self.mask_RW[row, :-1].bool()
        return Prefix(
            tuple(layer.keys[row, :, mine] for layer in self.layers),
            tuple(layer.values[row, :, mine] for layer in self.layers),
        )

    def repeat(self, rows: Sequence[int], prompts: list[Prompt]) -> Rows:
        """These rows, perhaps several times, each to answer one of the prompts."""
        index = torch.tensor(rows, device=self.ids_RW.device)
        for layer in self.layers if len(rows) > len(self) else ():
            layer.replace(layer.keys[index], layer.values[index])
        generators = [torch.Generator().manual_seed(prompt.request.draw_seed) for prompt in prompts]
        answers: list[list[int]] = [[] for _ in rows]
        logprobs: list[list[float]] = [[] for _ in rows]
        return Rows(prompts, answers, logprobs, generators, self.ids_RW[index], self.mask_RW[index], self.cache)

    def extend(self, ids_RW: Tensor, logits_RV: Sequence[Tensor] = ()) -> None:
        """Take in what was generated: `ids_RW` are the rows' ids with new columns on the right.

        `logits_RV` of each new column, where log-probabilities are wanted.
        """
        new_RW = ids_RW[:, self.ids_RW.shape[1] :]
        new = new_RW.shape[1]
        for answer, ids in zip(self.answers, new_RW.tolist(), strict=True):
            answer += ids
        if logits_RV:
            scores_RWV = torch.stack(tuple(logits_RV), dim=1).float().log_softmax(dim=-1)
            chosen_RW = scores_RWV.gather(2, new_RW[:, :, None])[:, :, 0]
            for logprobs, of in zip(self.logprobs, chosen_RW.tolist(), strict=True):
                logprobs += of
        self.ids_RW, self.mask_RW = ids_RW, functional.pad(self.mask_RW, (0, new), value=1)

    def select(self, rows: Sequence[int]) -> Rows:
        """These rows alone, at least one, without the columns that are padding in all of them."""
        if len(rows) == len(self):
            return self
        index = torch.tensor(rows, device=self.ids_RW.device)
        first = int(self.mask_RW[index].argmax(dim=1).min())
        for layer in self.layers:
            layer.select(index, first)
        return Rows(
            [self.prompts[row] for row in rows],
            [self.answers[row] for row in rows],
            [self.logprobs[row] for row in rows],
            [self.generators[row] for row in rows],
            self.ids_RW[index, first:],
            self.mask_RW[index, first:],
            self.cache,
        )

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """The rows of all parts, the narrower ones with padding on their left."""
        if len(parts) == 1:
            return parts[0]
        width = max(part.ids_RW.shape[1] for part in parts)

        def widened(tensors: Iterable[Tensor]) -> Tensor:
            return torch.cat([functional.pad(tensor, (width - tensor.shape[1], 0)) for tensor in tensors])

        for layer, *others in zip(*(part.cache.layers for part in parts), strict=True):
            keys, values = ([getattr(one, name) for one in (layer, *others)] for name in ("keys", "values"))
            layer.replace(_together(keys, width - 1), _together(values, width - 1), ROOM)
            for other in others:  # let go layer by layer: two whole caches would be twice the memory
                other.replace(layer.keys[:0].clone(), layer.values[:0].clone())
        return cls(
            [prompt for part in parts for prompt in part.prompts],
            [answer for part in parts for answer in part.answers],
            [logprobs for part in parts for logprobs in part.logprobs],
            [generator for part in parts for generator in part.generators],
            widened(part.ids_RW for part in parts),
            widened(part.mask_RW for part in parts),
            parts[0].cache,
        )


def _stack(parts_HWD: Sequence[Tensor | None], width: int) -> Tensor:
    """Rows [R, H, W, D], zeros where there is none and on the left."""
    known = next(part for part in parts_HWD if part is not None)
    stacked_RHWD = known.new_zeros(len(parts_HWD), known.shape[0], width, known.shape[2])
    for row, part in zip(stacked_RHWD, parts_HWD, strict=True):
        if part is not None:
            row[:, width - part.shape[1] :] = part
    return stacked_RHWD


def _together(parts_RHWD: Sequence[Tensor], width: int) -> Tensor:
    """The rows of all parts [R, H, W + ROOM, D], the narrower ones with zeros on their left."""
    _, heads, _, size = parts_RHWD[0].shape
    made_RHWD = parts_RHWD[0].new_empty(sum(map(len, parts_RHWD)), heads, width + ROOM, size)
    for rows, part in zip(made_RHWD.split([*map(len, parts_RHWD)]), parts_RHWD, strict=True):
        before = width - part.shape[2]
        rows[:, :, :before] = 0
        rows[:, :, before:width] = part
    return made_RHWD
