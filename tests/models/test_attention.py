"""Attention over packed sequences: a GPU's way is called as torch wants it, and means what a CPU's does."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest
import torch
from packaging.version import Version
from torch import Tensor
from torch.nn import functional

from tale.data.layout import Layout
from tale.models import attention
from tale.models.attention import packed_attention


def heads(positions: int, count: int) -> Tensor:
    return torch.randn(1, count, positions, 8, generator=torch.Generator().manual_seed(count))


def plainly(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """[T, H, D] of one sequence: softmax of scores, nothing of torch's attention."""
    key, value = (tensor.repeat_interleave(query.shape[1] // tensor.shape[1], dim=1) for tensor in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query, key) * 0.3
    later = torch.ones(len(query), len(query), dtype=torch.bool).triu(1)
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(later, -torch.inf).softmax(dim=-1), value)


def flash(
    query: Tensor, key: Tensor, value: Tensor, ends: Tensor, key_ends: Tensor, longest: int, longest_key: int, **rest
) -> Tensor:
    """What torch says of `varlen_attn`: sequences from end to end, a window of (-1, 0) is causal."""
    grouped = {"enable_gqa": True} if Version(torch.__version__) >= Version("2.12") else {}
    assert rest == {"scale": 0.3, "window_size": (-1, 0), **grouped}
    assert ends.dtype == torch.int32
    assert torch.equal(ends, key_ends)
    assert longest == longest_key == ends.diff().max()
    parts = zip(*(tensor.split(ends.diff().tolist()) for tensor in (query, key, value)), strict=True)
    return torch.cat([plainly(*part) for part in parts])


@pytest.mark.parametrize(
    "layout",
    [
        Layout((3, 1, 6)),
        # Positions 0 to 2 are a prompt, 3 to 5 and 6 to 9 its two answers.
        Layout(
            (6, 7),
            torch.tensor([0, 1, 2, 3, 4, 5, 0, 1, 2, 6, 7, 8, 9]),
            torch.tensor([0, 1, 2, 3, 4, 5, 9, 10, 11, 12]),
        ),
    ],
    ids=["apart", "a shared prompt"],
)
def test_flash_attention_equals_one_sequence_at_a_time(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    given = heads(10, 6), heads(10, 2), heads(10, 2)
    one_by_one, _ = packed_attention(torch.nn.Identity(), *given, None, layout=layout, scaling=0.3)
    spy = create_autospec(attention.varlen_attn, side_effect=flash)
    monkeypatch.setattr(attention, "varlen_attn", spy)
    monkeypatch.setattr(attention, "_one_by_one", attention._varlen)
    at_once, _ = packed_attention(torch.nn.Identity(), *given, None, layout=layout, scaling=0.3)
    spy.assert_called_once()
    torch.testing.assert_close(at_once, one_by_one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("key_heads", [1, 2, 6])
@pytest.mark.parametrize("length", [1, 7])
def test_attention_by_products_equals_the_kernels(length: int, key_heads: int) -> None:
    """In results and gradients."""
    given = [heads(length, count).requires_grad_() for count in (6, key_heads, key_heads)]
    kernel = functional.scaled_dot_product_attention(*given, is_causal=True, scale=0.3, enable_gqa=True)
    products = attention._by_products(*given, 0.3)
    torch.testing.assert_close(products, kernel, rtol=1e-5, atol=1e-6)
    weights = torch.randn(kernel.shape, generator=torch.Generator().manual_seed(0))
    for mine, torchs in zip(
        torch.autograd.grad(products, given, weights), torch.autograd.grad(kernel, given, weights), strict=True
    ):
        torch.testing.assert_close(mine, torchs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("length", "dtype", "by_products"),
    [(12, torch.bfloat16, True), (12, torch.float32, False), (13, torch.bfloat16, False)],
)
def test_products_in_bfloat16_are_as_exact_as_the_kernel(
    length: int, dtype: torch.dtype, by_products: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short sequences in bfloat16 attend by products, all others by the kernel."""
    monkeypatch.setattr(attention, "SHORT", 12)
    spy = create_autospec(attention._by_products, side_effect=attention._by_products)
    monkeypatch.setattr(attention, "_by_products", spy)
    exact = [heads(length, count) for count in (6, 2, 2)]
    layout = Layout((length,))
    attended, _ = packed_attention(torch.nn.Identity(), *(t.to(dtype) for t in exact), None, layout=layout)
    assert spy.called is by_products
    expected = functional.scaled_dot_product_attention(*exact, is_causal=True, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(attended.float(), expected, rtol=0.02, atol=0.02)


def test_a_sequence_knows_nothing_of_the_others() -> None:
    query, key, value = heads(10, 6), heads(10, 2), heads(10, 2)
    packed, _ = packed_attention(torch.nn.Identity(), query, key, value, None, layout=Layout((4, 6)), scaling=0.3)
    first, second = (
        functional.scaled_dot_product_attention(*part, is_causal=True, scale=0.3, enable_gqa=True)
        for part in zip(*(tensor.split((4, 6), dim=2) for tensor in (query, key, value)), strict=True)
    )
    torch.testing.assert_close(packed, torch.cat([first, second], dim=2).transpose(1, 2), rtol=0, atol=0)
