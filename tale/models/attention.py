"""Attention over packed sequences, concatenated in one row of ids without padding.

Shape suffixes: T positions of the row, S positions of its sequences concatenated (more than T if sequences share a
prompt), H heads of width D.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

from tale.data.layout import Layout

NAME = "packed"
# Before 2.12, `varlen_attn` takes fewer key heads than query heads without being told.
GROUPED_HEADS: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in signature(varlen_attn).parameters else {}
SHORT = 512  # tokens up to which a sequence's scores, a square, are small compared with the other activations


@contextmanager
def fused_attention_only() -> Iterator[None]:
    """Context in which no scores are materialised, for sequences of any length: the memory is that of GPU kernels."""
    global SHORT
    short, SHORT = SHORT, 0
    try:
        yield
    finally:
        SHORT = short


@torch.compiler.disable  # lengths differ between batches, and each would be compiled to a separate graph
def packed_attention(
    module: torch.nn.Module,
    query_1HTD: Tensor,
    key_1HTD: Tensor,
    value_1HTD: Tensor,
    attention_mask: None,
    *,
    layout: Layout | None = None,
    scaling: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Causal attention within each sequence of `layout`, as [1, T, H, D]; keys and values may have fewer heads.

    It is registered with transformers as `NAME`, without a mask.

    Raises:
        ValueError: it is called without a layout.
    """
    assert attention_mask is None
    if layout is None:
        raise ValueError("the model's layers do not pass `layout` to attention")
    heads: tuple[Tensor, ...] = (query_1HTD, key_1HTD, value_1HTD)
    if layout.order_S is not None:
        heads = tuple(tensor.index_select(2, layout.order_S) for tensor in heads)
    fused = query_1HTD.is_cuda and query_1HTD.dtype in (torch.bfloat16, torch.float16)
    attended_1SHD = (_varlen if fused else _one_by_one)(heads, layout.lengths, scaling)
    if layout.places_T is not None:
        attended_1SHD = attended_1SHD.index_select(1, layout.places_T)
    return attended_1SHD, None


def _one_by_one(heads: Sequence[Tensor], lengths: tuple[int, ...], scaling: float | None) -> Tensor:
    """Each sequence separately: without mask and padding it takes the fast path of a CPU's attention."""
    parts = zip(*(tensor.split(lengths, dim=2) for tensor in heads), strict=True)
    attended = [_causal(query, key, value, scaling) for query, key, value in parts]
    return torch.cat(attended, dim=2).transpose(1, 2).contiguous()


def _causal(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """One sequence: by torch's kernel, or by matrix products if a CPU's kernel takes two to three times as long.

    In bfloat16 the products are rounded before the softmax, as in transformers' `eager` attention.
    """
    if query.dtype is torch.bfloat16 and query.shape[2] <= SHORT:
        return _by_products(query, key, value, scaling)
    return functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=True)


def _by_products(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """Attention by two matrix products; query heads that share a key head are rows of one product."""
    _, key_heads, length, width = key.shape
    rows = query.reshape(key_heads, -1, width)
    later = torch.full((length, length), -torch.inf, dtype=query.dtype, device=query.device).triu(1)
    mask = later.repeat(rows.shape[1] // length, 1)
    scores = torch.baddbmm(mask, rows, key[0].transpose(1, 2), alpha=width**-0.5 if scaling is None else scaling)
    return torch.bmm(scores.softmax(dim=-1), value[0]).view(*query.shape[:-1], -1)


def _varlen(heads: Sequence[Tensor], lengths: tuple[int, ...], scaling: float | None) -> Tensor:
    """FlashAttention over all sequences at once. Not yet run on a GPU."""
    ends, most = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=heads[0].device), max(lengths)
    query, key, value = (tensor[0].transpose(0, 1) for tensor in heads)
    attended: Any = varlen_attn(
        query, key, value, ends, ends, most, most, scale=scaling, window_size=(-1, 0), **GROUPED_HEADS
    )  # one tensor, as no other output is requested
    return attended[None]


AttentionInterface.register(NAME, packed_attention)
