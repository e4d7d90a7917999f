"""Linear layers on a CPU with weights prepacked in oneDNN's layout.

Otherwise oneDNN packs a weight for every product, which for the few rows of a decoding step takes an eighth (128 rows)
to a third (1 row) of the time in bfloat16. The results are the same, in bfloat16 bit by bit.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tale.hardware.mapped import release_mapped_weights

MAPPED = 2**28  # bytes of weights to repack before their pages in the checkpoint's file are released

# The operators that torch's compiler uses for a frozen linear layer; torch has no public name for them.
MKLDNN = torch.ops.mkldnn


class PrepackedLinear(nn.Linear):
    """A linear layer with a prepacked weight. A class, since a `forward` of the instance would refer back to the layer.

    Such a cycle keeps the weights, gigabytes of them, until Python's collector of cycles happens to run.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] → [..., out]."""
        return MKLDNN._linear_pointwise(input, self.weight, self.bias, "none", [], "")


def prepack_linear(model: nn.Module, in_training: bool = False) -> None:
    """Replace the weights of the model's linear layers by prepacked ones, if the processor supports it.

    With `in_training` those that have a gradient stay as they are; a model that was loaded to generate has them, too.
    """
    if not torch.backends.mkldnn.is_available():
        return
    repacked = 0
    types = {torch.float32, *([torch.bfloat16] if MKLDNN._is_mkldnn_bf16_supported() else [])}
    for module in model.modules():
        # A layer of class `PrepackedLinear` is prepacked already: its model had an engine before.
        if type(module) is not nn.Linear or (in_training and module.weight.requires_grad):
            continue
        if module.weight.dtype in types:
            module.weight = nn.Parameter(MKLDNN._reorder_linear_weight(module.weight.detach()), requires_grad=False)
            module.__class__ = PrepackedLinear
            repacked += module.weight.nbytes
            if repacked >= MAPPED:
                release_mapped_weights()
                repacked = 0


def unpack_linear(model: PreTrainedModel) -> None:
    """Undo `prepack_linear`, bit by bit: a prepacked layer has no gradient. A tied head is tied again."""
    for module in model.modules():
        if type(module) is PrepackedLinear:
            module.weight = nn.Parameter(module.weight.detach().to_dense(), requires_grad=False)
            module.__class__ = nn.Linear  # type: ignore[assignment]
    if model.config.get_text_config().tie_word_embeddings:
        model.get_output_embeddings().weight = model.get_input_embeddings().weight
