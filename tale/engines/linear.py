"""Linear layers for the few rows of a decoding step on a CPU.

A product of few rows with a large weight is computed as the weight times the rows, transposed: the same sums, but the
library then divides the long side among the cores and does not repack the weight. On AVX2 the product alone takes half
the time for 2 to 16 rows and four fifths for 128.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

ROWS = 512  # from which on both ways take the same time; one row alone is a product with a vector either way


def for_few_rows(model: nn.Module) -> None:
    """Let the model's float32 linear layers compute few rows so; bfloat16 products have kernels of their own."""
    for module in model.modules():
        if type(module) is nn.Linear and module.weight.dtype is torch.float32:
            module.forward = partial(few_rows, module)


def few_rows(layer: nn.Linear, given: Tensor) -> Tensor:
    """`layer` applied to `given` [..., in]: [..., out]."""
    rows = given.numel() // layer.in_features
    if not 1 < rows <= ROWS:
        return functional.linear(given, layer.weight, layer.bias)
    product = (layer.weight @ given.reshape(rows, layer.in_features).T).T.contiguous()
    if layer.bias is not None:
        product += layer.bias
    return product.view(*given.shape[:-1], layer.out_features)
