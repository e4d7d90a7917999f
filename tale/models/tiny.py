"""Tiny copies of architectures: all kinds of layers are kept, widths and numbers are reduced.

With a copy it is verified, in a second and before any weights are loaded, that optimised code equals the plain model.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

VOCABULARY = 64
SPREAD = 3.0  # standard deviation of a linear layer's outputs: scores and logits are large enough to reach a cap
NEAR = 0.05  # standard deviation of the noise on norms' weights and biases
WINDOW = 4  # tokens that a sliding window keeps
EXPERTS = 16
WIDE = 64  # widths up to this one stay
INNER = 128  # width of a layer's MLP, on which no other number depends
PARAMETERS = 3 * 10**8  # a copy with more is an error: a number in the config is not recognised by its name

# Names of numbers in configs. Numbers with other names are kept: a head's width, experts in use, kernels, factors.
WINDOWS = re.compile(r"window(_size)?$|^attention_chunk_size$")
HEADS = re.compile(r"(^|_)heads$|^n_head$")
INNERS = re.compile(r"intermediate|ffn|inner$")
WIDTHS = re.compile(r"size|dim|width|embd$|^d_|_d_ssm$")
NO_WIDTHS = re.compile(r"head|rot|rope|state|conv|kernel")
MANY_EXPERTS = re.compile(r"experts$")
ORDINALS = re.compile(r"(idx|index|layer_id|layer_number|number)$")
POSITIONS = {"rope_parameters", "rope_scaling"}  # depend on a head's width


@dataclass(frozen=True)
class Architecture:
    """A hashable config."""

    content: str
    config: PreTrainedConfig = field(compare=False)

    @classmethod
    def of(cls, config: PreTrainedConfig) -> Architecture:
        """Wrap a model's config."""
        return cls(f"{config.model_type} {config.to_json_string(use_diff=False)}", config)


def tiny_copy(config: PreTrainedConfig, longest: int, attention: str | None = "eager") -> PreTrainedModel:
    """The architecture in float32 on the CPU with the fewest layers that include each kind, and random weights.

    All parameters are random, biases and norms too, with a fixed seed. A window of at least `longest` tokens is kept, a
    smaller one becomes `WINDOW`. `attention` is transformers' implementation; None: its default.

    Raises:
        Exception: transformers cannot build the tiny config.
    """
    tiny = _with_layers(_narrow(config.get_text_config(), longest))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(tiny, dtype=torch.float32, attn_implementation=attention).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn_like(parameter)
                if parameter.ndim == 1:  # norms, biases and rates: near their initial values
                    parameter += NEAR * noise
                else:
                    parameter.copy_(SPREAD * parameter.shape[-1] ** -0.5 * noise)
    return model


def layers_of(model: nn.Module, config: PreTrainedConfig) -> nn.ModuleList:
    """The model's layers.

    Raises:
        ValueError: it has no list of as many layers as in its config.
    """
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    found = next((layers for layers in lists if len(layers) == config.num_hidden_layers), None)
    if found is None:
        raise ValueError(f"no list of {config.num_hidden_layers} layers")
    return found


def narrowest_window(config: PreTrainedConfig) -> int | None:
    """The smallest of its sliding windows, in tokens; None without one."""
    content = config.get_text_config().to_dict().items()
    windows = [value for name, value in content if WINDOWS.search(name) and isinstance(value, int) and value > 0]
    return min(windows, default=None)


def _narrow(config: PreTrainedConfig, longest: int) -> PreTrainedConfig:
    """Reduce to four heads of the same width, with grouped keys to two key heads; other widths shrink in proportion."""
    heads = getattr(config, "num_attention_heads", None)
    if isinstance(heads, int):
        shared = getattr(config, "num_key_value_heads", None) or heads
        counts = {shared: min(shared, 2), heads: min(heads, 4)}
        factor = heads / counts[heads]
    else:
        counts, factor = {}, max(1, config.hidden_size // 256)

    def shrunk(name: str, value: int) -> int:
        if name.endswith("token_id"):
            return 0
        if "vocab" in name:
            return VOCABULARY
        if WINDOWS.search(name):
            return WINDOW if 0 < value < longest else value
        if HEADS.search(name):
            return counts.get(value) or max(1, round(value / factor))
        if MANY_EXPERTS.search(name):
            return min(value, EXPERTS)
        if heads and INNERS.search(name):
            return min(value, INNER)
        if WIDTHS.search(name) and not NO_WIDTHS.search(name) and value > WIDE:
            return max(1, round(value / factor))
        return value

    return _rebuilt(config, shrunk)


def _rebuilt(
    config: PreTrainedConfig, change: Callable[[str, int], int], layers: int | None = None
) -> PreTrainedConfig:
    """The config with every number changed; lists with one item per layer are cut to the first `layers`."""
    depth = config.num_hidden_layers

    def changed(name: str, value: Any) -> Any:
        if isinstance(value, dict) and name not in POSITIONS:
            return {key: changed(key, inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [changed(name, inner) for inner in (value[:layers] if len(value) == depth else value)]
        return change(name, value) if isinstance(value, int) and not isinstance(value, bool) else value

    content = {name: changed(name, value) for name, value in config.to_dict().items() if name != "quantization_config"}
    if layers:
        content[config.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = layers
    return type(config).from_dict(content)


def _with_layers(config: PreTrainedConfig) -> PreTrainedConfig:
    """Keep the first layers, at least two, up to where every kind of layer has appeared."""
    with torch.device("meta"):
        outline = AutoModelForCausalLM.from_config(config)
    kinds = [_kind(layer) for layer in layers_of(outline, config)]
    layers = max(2, *(kinds.index(kind) + 1 for kind in kinds))
    tiny = _rebuilt(config, lambda _, value: value, min(layers, len(kinds)))
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(tiny).parameters())
    if size > PARAMETERS:
        raise ValueError(f"the copy still has {size:,} parameters")
    return tiny


def _kind(layer: nn.Module) -> str:
    """A layer's kind: its modules, shapes and settings, without its index."""
    parts = []
    for name, module in layer.named_modules():
        settings = {
            key: value
            for key, value in vars(module).items()
            if isinstance(value, bool | int | str | None) and not ORDINALS.search(key)
        }
        shapes = [(key, tuple(parameter.shape)) for key, parameter in module.named_parameters(recurse=False)]
        parts.append((name, type(module).__name__, sorted(settings.items()), shapes))
    return repr(parts)
