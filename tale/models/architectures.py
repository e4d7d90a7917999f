"""Models from their architecture alone: the configs kept here, and weights for them, made layer by layer."""

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
from tale.models import embedded

CONFIGS = Path(__file__).parent / "configs"
BLOCK = 64  # weights that share a scale in NF4


def known() -> list[str]:
    """Names of the architectures kept here."""
    return sorted(folder.name for folder in CONFIGS.iterdir())


def read_architecture(config: ModelConfig) -> PreTrainedConfig:
    """The architecture of the model that a recipe names: of its local folder, else the kept one whose words it has.

    Raises:
        UserError: there is neither.
    """
    folder = Path(config.name_or_path).expanduser()
    if (folder / "config.json").is_file():
        return AutoConfig.from_pretrained(folder)
    called = set(re.split(r"[^a-z0-9.]+", f"{config.name or ''} {config.name_or_path}".lower()))
    name = next((name for name in known() if called.issuperset(name.split("-"))), None)
    if name is None:
        raise UserError(
            f"model.name_or_path: {config.name_or_path} is no folder with a config.json, and its name holds none of "
            f"the kept architectures: {', '.join(known())}. Give a folder with its config.json, or model.name=<one of "
            "these>"
        )
    kept = AutoConfig.from_pretrained(CONFIGS / name)
    if config.name_or_path.startswith(embedded.PREFIX):
        kept.tie_word_embeddings = embedded.named(config.name_or_path).tied
    return kept


def empty_model(config: PreTrainedConfig, dtype: torch.dtype, quantize: str | None = None) -> PreTrainedModel:
    """The architecture on the meta device; with `quantize="nf4"` its linear layers but the head are 4-bit ones.

    They are bitsandbytes' NF4 with double quantisation (arXiv:2305.14314) and compute in `dtype`.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        if quantize == "nf4":
            model.is_loaded_in_4bit = True  # what PEFT asks before it adapts a 4-bit layer as one
            for name, layer in _linear_but_head(model).items():
                shape = layer.in_features, layer.out_features
                model.set_submodule(name, Linear4bit(*shape, layer.bias is not None, dtype, quant_type="nf4"))
                model.get_submodule(name).weight.data = layer.weight.data
    return never_repacked(model)


def check_blocks(model: PreTrainedModel) -> None:
    """Whether a CPU can compute with this model's linear layers in NF4, given its outline.

    With AVX-512 bitsandbytes (0.50) takes each row's scales from its own beginning, though a block of 64 weights may
    begin in the row before.

    Raises:
        UserError: a layer's rows are no multiple of a block.
    """
    for name, layer in _linear_but_head(model).items():
        if layer.in_features % BLOCK:
            raise UserError(
                f"model.quantization=nf4: {name} has rows of {layer.in_features} weights, no multiple of {BLOCK}, "
                "which bitsandbytes computes wrongly on some CPUs; leave out model.quantization, or take a GPU"
            )


def never_repacked(model: PreTrainedModel) -> PreTrainedModel:
    """The same model, its 4-bit layers computed in training as in evaluation.

    On a CPU with bfloat16 products bitsandbytes packs a layer anew when it first computes in evaluation: the scales are
    then rounded to bfloat16, the sums too, and no gradient goes through. A validation would change what is trained.
    """
    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.support_avx512bf16_for_cpu = False
    return model


def fill(module: nn.Module, initialise: Callable[[nn.Module], None]) -> None:
    """Give every parameter and buffer of the meta device memory, and values by `initialise`, one module at a time.

    A 4-bit layer is quantised at once, so never more than one is held in full.
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
            if isinstance(packed, FakeTensor):  # which can be no Params4bit; the layer asks for its state alone
                part.weight = nn.Parameter(packed, requires_grad=False)
                part.weight.quant_state = state  # type: ignore[attr-defined]
            else:
                part.weight = Params4bit(packed, quant_state=state, quant_type="nf4", bnb_quantized=True, module=part)
            part.quant_state = state


def random_model(config: PreTrainedConfig, dtype: torch.dtype, quantize: str | None = None) -> PreTrainedModel:
    """The architecture with random weights, as transformers initialises them."""
    model = empty_model(config, dtype, quantize)
    fill(model, model._init_weights)
    return model


def _linear_but_head(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The layers that are quantised."""
    head = model.get_output_embeddings()
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head}


def _empty(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype)
