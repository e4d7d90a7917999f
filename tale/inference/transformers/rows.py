"""The live rows of a batch: a row leaves when its answer has ended, and another prompt takes its place."""

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
from tale.inference.transformers.prefix_cache import Prefix

# Shape suffixes: R rows, W columns (prompt and answer so far, masked columns are padding), H heads of width D.

SPARE_COLUMNS = 32  # columns by which a cache layer grows, so that not every token copies all keys and values


class PreallocatedCacheLayer(DynamicLayer):
    """A cache layer with preallocated columns: the next token is written in place, without copying the others.

    It keeps all columns: sliding windows are applied by the mask.
    """

    keys: Tensor
    values: Tensor
    buffer_keys_RHWD = torch.empty(0, 0, 0, 0)  # `keys` and `values` are the first columns of these
    buffer_values_RHWD = torch.empty(0, 0, 0, 0)

    def update(self, key_states: Tensor, value_states: Tensor, *_, **__) -> tuple[Tensor, Tensor]:
        """Append the new columns' keys and values [R, H, new, D]; return all columns."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        after = before + key_states.shape[-2]
        if self.buffer_keys_RHWD.shape[-2] < after:
            self.buffer_keys_RHWD = _buffer(self.keys, key_states, after)
            self.buffer_values_RHWD = _buffer(self.values, value_states, after)
        self.buffer_keys_RHWD[:, :, before:after] = key_states
        self.buffer_values_RHWD[:, :, before:after] = value_states
        self.keys, self.values = self.buffer_keys_RHWD[:, :, :after], self.buffer_values_RHWD[:, :, :after]
        return self.keys, self.values

    def replace(self, keys: Tensor, values: Tensor, spare: int = 0) -> None:
        """Replace all columns; the last `spare` ones are unused."""
        self.buffer_keys_RHWD, self.buffer_values_RHWD = keys, values
        columns = keys.shape[-2] - spare
        self.keys, self.values = keys[:, :, :columns], values[:, :, :columns]

    def select(self, rows: Tensor, first: int) -> None:
        """Keep only these rows, from column `first` on, spare columns included."""
        spare = self.buffer_keys_RHWD.shape[-2] - self.keys.shape[-2]
        self.replace(self.buffer_keys_RHWD[rows, :, first:], self.buffer_values_RHWD[rows, :, first:], spare)


def _buffer(held: Tensor, new: Tensor, columns: int) -> Tensor:
    rows, heads, _, width = new.shape
    room_RHWD = new.new_empty(rows, heads, columns + SPARE_COLUMNS, width)
    if held.numel():
        room_RHWD[:, :, : held.shape[-2]] = held
    return room_RHWD


@dataclass(frozen=True)
class Prompt:
    """A request, its number, the ids of its prompt, and how many of them came from the cache."""

    index: int
    ids: tuple[int, ...]
    request: Request
    cached: int = 0


@dataclass
class LiveRows:
    """Rows of prompts and their answers so far. `cache` has keys and values of all columns but the last."""

    prompts: list[Prompt]  # of each row
    answers: list[list[int]]  # the generated ids of each row
    logprobs: list[list[float]]  # of the generated ids, if requested
    generators: list[torch.Generator]  # of each row
    ids_RW: Tensor
    mask_RW: Tensor
    cache: Cache

    def __len__(self) -> int:
        return len(self.ids_RW)

    @property
    def layers(self) -> list[PreallocatedCacheLayer]:
        """The cache's layers."""
        return cast(list[PreallocatedCacheLayer], self.cache.layers)

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]], prefixes: Sequence[Prefix], device: torch.device) -> LiveRows:
        """Rows of prompts, each with a cached prefix that leaves at least one id to compute.

        All rows with a prefix leave the same number of ids to compute, the others no more: padding between a prefix and
        the rest would fill a sliding window, which counts columns.
        """
        before = max(map(len, prefixes))
        rest = max(len(prompt) - len(prefix) for prompt, prefix in zip(prompts, prefixes, strict=True))
        width = before + max(1 if before else 2, rest)  # so that the cache is not empty
        ids = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        cache = Cache(layer_class_to_replicate=PreallocatedCacheLayer)
        layers = max(len(prefix.keys_HWD) for prefix in prefixes)
        for layer in range(layers):
            keys_RHWD = _stack([prefix.keys_HWD[layer] if prefix else None for prefix in prefixes], before)
            values_RHWD = _stack([prefix.values_HWD[layer] if prefix else None for prefix in prefixes], before)
            cache.update(keys_RHWD, values_RHWD, layer)
        return cls([], [], [], [], torch.tensor(ids, device=device), torch.tensor(mask, device=device), cache)

    def columns(self, row: int, end: int, start: int) -> Prefix:
        """A copy of this row's columns of the cache from `start` to `end`, counted without padding."""
        padding = int(self.mask_RW[row].argmax())
        mine = slice(padding + start, padding + end)
        return Prefix(
            tuple(layer.keys[row, :, mine].clone() for layer in self.layers),
            tuple(layer.values[row, :, mine].clone() for layer in self.layers),
        )

    def repeat(self, rows: Sequence[int], prompts: list[Prompt]) -> LiveRows:
        """The rows at these indices, possibly repeated, one for each of the prompts."""
        index = torch.tensor(rows, device=self.ids_RW.device)
        for layer in self.layers if len(rows) > len(self) else ():
            layer.replace(layer.keys[index], layer.values[index])
        generators = [torch.Generator().manual_seed(prompt.request.draw_seed) for prompt in prompts]
        answers: list[list[int]] = [[] for _ in rows]
        logprobs: list[list[float]] = [[] for _ in rows]
        return LiveRows(prompts, answers, logprobs, generators, self.ids_RW[index], self.mask_RW[index], self.cache)

    def extend(self, ids_RW: Tensor, logprobs_R: Sequence[Tensor] = ()) -> None:
        """Append generated tokens: `ids_RW` are the rows' ids with new columns on the right.

        `logprobs_R` of each new column, if log-probabilities are requested.
        """
        new = ids_RW.shape[1] - self.ids_RW.shape[1]
        for answer, ids in zip(self.answers, ids_RW[:, -new:].tolist(), strict=True):
            answer += ids
        if logprobs_R:
            for logprobs, of in zip(self.logprobs, torch.stack(tuple(logprobs_R), dim=1).tolist(), strict=True):
                logprobs += of
        self.ids_RW, self.mask_RW = ids_RW, functional.pad(self.mask_RW, (0, new), value=1)

    def select(self, rows: Sequence[int]) -> LiveRows:
        """Only these rows, at least one, without the columns that are padding in all of them."""
        if len(rows) == len(self):
            return self
        index = torch.tensor(rows, device=self.ids_RW.device)
        first = int(self.mask_RW[index].argmax(dim=1).min())
        for layer in self.layers:
            layer.select(index, first)
        return LiveRows(
            [self.prompts[row] for row in rows],
            [self.answers[row] for row in rows],
            [self.logprobs[row] for row in rows],
            [self.generators[row] for row in rows],
            self.ids_RW[index, first:],
            self.mask_RW[index, first:],
            self.cache,
        )

    @classmethod
    def concatenated(cls, parts: Sequence[LiveRows]) -> LiveRows:
        """The rows of all parts, left-padded to the same width."""
        if len(parts) == 1:
            return parts[0]
        width = max(part.ids_RW.shape[1] for part in parts)

        def widened(tensors: Iterable[Tensor]) -> Tensor:
            return torch.cat([functional.pad(tensor, (width - tensor.shape[1], 0)) for tensor in tensors])

        for layer, *others in zip(*(part.cache.layers for part in parts), strict=True):
            keys, values = ([getattr(one, name) for one in (layer, *others)] for name in ("keys", "values"))
            layer.replace(_together(keys, width - 1), _together(values, width - 1), SPARE_COLUMNS)
            for other in others:  # freed layer by layer: two whole caches would take twice the memory
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
    """The parts as rows [R, H, W, D], with zeros on the left and for None."""
    known = next(part for part in parts_HWD if part is not None)
    stacked_RHWD = known.new_zeros(len(parts_HWD), known.shape[0], width, known.shape[2])
    for row, part in zip(stacked_RHWD, parts_HWD, strict=True):
        if part is not None:
            row[:, width - part.shape[1] :] = part
    return stacked_RHWD


def _together(parts_RHWD: Sequence[Tensor], width: int) -> Tensor:
    """The rows of all parts [R, H, W + SPARE_COLUMNS, D], with zeros on the left."""
    _, heads, _, size = parts_RHWD[0].shape
    made_RHWD = parts_RHWD[0].new_empty(sum(map(len, parts_RHWD)), heads, width + SPARE_COLUMNS, size)
    for rows, part in zip(made_RHWD.split([*map(len, parts_RHWD)]), parts_RHWD, strict=True):
        before = width - part.shape[2]
        rows[:, :, :before] = 0
        rows[:, :, before:width] = part
    return made_RHWD
