"""Models built from their architecture only: bundled configs, empty models, and random weights layer by layer."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch
from bitsandbytes.functional import quantize_4bit
from bitsandbytes.nn import Linear4bit, Params4bit
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from tale.config.sections import ModelConfig
from tale.errors import UserError
from tale.hardware.malloc import limit_freed_memory
from tale.models import embedded

CONFIGS = Path(__file__).parent / "configs"
BLOCK = 64  # weights that share a scale in NF4


def known_architectures() -> list[str]:
    """Names of the bundled architectures."""
    return sorted(folder.name for folder in CONFIGS.iterdir())


def read_architecture(config: ModelConfig) -> PreTrainedConfig:
    """The architecture of a recipe's model: from its local folder, else the bundled one whose words are in its name.

    Raises:
        UserError: there is neither.
    """
    folder = Path(config.name_or_path).expanduser()
    if (folder / "config.json").is_file():
        return AutoConfig.from_pretrained(folder)
    called = set(re.split(r"[^a-z0-9.]+", f"{config.name or ''} {config.name_or_path}".lower()))
    name = next((name for name in known_architectures() if called.issuperset(name.split("-"))), None)
    if name is None:
        raise UserError(
            f"model.name_or_path: {config.name_or_path} is not a folder with a config.json, and its name has none of "
            f"the bundled architectures: {', '.join(known_architectures())}. Give a folder with its config.json, or "
            "model.name=<one of these>"
        )
    kept = AutoConfig.from_pretrained(CONFIGS / name)
    if config.name_or_path.startswith(embedded.PREFIX):
        kept.tie_word_embeddings = embedded.embedded_model(config.name_or_path).tied
    return kept


def empty_model(config: PreTrainedConfig, dtype: torch.dtype, quantize: str | None = None) -> PreTrainedModel:
    """The architecture on the meta device; with `quantize="nf4"` its linear layers, except the head, are 4-bit.

    These are bitsandbytes' NF4 layers with double quantisation (arXiv:2305.14314) that compute in `dtype`.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        if quantize == "nf4":
            model.is_loaded_in_4bit = True  # PEFT requires it to adapt a 4-bit layer
            for name, layer in _linear_but_head(model).items():
                shape = layer.in_features, layer.out_features
                model.set_submodule(name, Linear4bit(*shape, layer.bias is not None, dtype, quant_type="nf4"))
                model.get_submodule(name).weight.data = layer.weight.data
    return disable_cpu_repacking(model)


def check_nf4_blocks(model: PreTrainedModel) -> None:
    """Check that a CPU can compute with this meta model's linear layers in NF4.

    With AVX-512, bitsandbytes (0.50) assumes that a block of 64 weights starts with every row, although a block may
    start in the previous row.

    Raises:
        UserError: a layer's row length is not a multiple of the block size.
    """
    for name, layer in _linear_but_head(model).items():
        if layer.in_features % BLOCK:
            raise UserError(
                f"model.quantization=nf4: {name} has rows of {layer.in_features} weights, not a multiple of {BLOCK}, "
                "which bitsandbytes computes wrongly on some CPUs; leave out model.quantization, or use a GPU"
            )


def disable_cpu_repacking(model: PreTrainedModel) -> PreTrainedModel:
    """Make the model's 4-bit layers compute in evaluation as in training; returns the model.

    On a CPU with bfloat16 products bitsandbytes repacks a layer when it first runs in evaluation mode: scales and sums
    are then rounded to bfloat16, and there are no gradients. So a validation would change the training.
    """
    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.support_avx512bf16_for_cpu = False
    return model


def materialize(module: nn.Module, initialise: Callable[[nn.Module], None]) -> None:
    """Allocate all parameters and buffers that are on the meta device, and set them by `initialise`, module by module.

    A 4-bit layer is quantised immediately, so that at most one is in memory unquantised.
    """
    tied: dict[nn.Parameter, nn.Parameter] = {}
    for part in module.modules():
        quantised = isinstance(part, Linear4bit)
        for name, parameter in list(part.named_parameters(recurse=False)):
            if parameter.is_meta:
                made = tied.get(parameter)
                made = nn.Parameter(_empty(parameter), parameter.requires_grad) if made is None else made
                setattr(part, name, made)
                if not quantised:
                    tied[parameter] = made
        for name, buffer in list(part.named_buffers(recurse=False)):
            setattr(part, name, _empty(buffer) if buffer.is_meta else buffer)
        initialise(part)
        if isinstance(part, Linear4bit):
            packed, state = quantize_4bit(part.weight.data, quant_type="nf4", compress_statistics=True)
            if isinstance(packed, FakeTensor):  # which cannot be a Params4bit; the layer needs only its state
                part.weight = nn.Parameter(packed, requires_grad=False)
                part.weight.quant_state = state  # type: ignore[attr-defined]
            else:
                part.weight = Params4bit(packed, quant_state=state, quant_type="nf4", bnb_quantized=True, module=part)
                limit_freed_memory()  # of the weights before they were quantised
            part.quant_state = state


def random_model(config: PreTrainedConfig, dtype: torch.dtype, quantize: str | None = None) -> PreTrainedModel:
    """The architecture with random weights, initialised as by transformers."""
    model = empty_model(config, dtype, quantize)
    materialize(model, model._init_weights)
    return model


def _linear_but_head(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The linear layers except the head, which are those to quantise."""
    head = model.get_output_embeddings()
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head}


def _empty(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype)
