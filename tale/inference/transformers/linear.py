"""Linear layers on a CPU whose weights lie in the order in which oneDNN's products read them.

Else oneDNN brings a weight into that order for every product, which for the few rows of a decoding step takes an eighth
(128 rows) to a third (1 row) of the time in bfloat16. The sums are the same, in bfloat16 to the last bit.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

# What torch's own compiler makes of a frozen linear layer; torch offers it under no other name.
MKLDNN = torch.ops.mkldnn


def reorder(model: nn.Module) -> None:
    """Let the model's linear layers hold their weights so, in place of the matrix, where the processor can."""
    if not torch.backends.mkldnn.is_available():
        return
    types = {torch.float32, *([torch.bfloat16] if MKLDNN._is_mkldnn_bf16_supported() else [])}
    for module in model.modules():
        # One that is reordered already is left: its model has had an engine before.
        if type(module) is nn.Linear and module.weight.dtype in types and not module.weight.is_mkldnn:
            module.weight = nn.Parameter(MKLDNN._reorder_linear_weight(module.weight.detach()), requires_grad=False)
            module.forward = partial(linear, module)  # type: ignore[method-assign]


def linear(layer: nn.Linear, given: Tensor) -> Tensor:
    """A reordered `layer` applied to `given` [..., in]: [..., out]."""
    return MKLDNN._linear_pointwise(given, layer.weight, layer.bias, "none", [], "")
