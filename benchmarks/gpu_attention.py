"""Is attention over packed sequences right on this device? Against single sequences in float32 on a CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache, partial
from typing import Any

import torch
from gpu_models import LARGE, SMALL, Cases, Size, config_of, device, lengths, random_examples, random_module, recipe_of
from torch import Tensor
from torch.nn import functional

from tale.config.training import TrainRecipe
from tale.data.examples import Example, pack
from tale.errors import UserError
from tale.models import attention
from tale.models.modules import CausalLMModule
from tale.training.run import training_fabric

ADAPTERS = 0.1  # standard deviation of the adapters' B weights, which are initialised to 0
EXAMPLES = 4
LAYERS = 4  # of the 1B model, as its step in float32 is the CPU's
ROUNDS = 5
Heads = Sequence[Tensor]  # query, key and value, each [1, H, T, D]
Run = tuple[float, dict[str, Tensor]]  # the loss, and the gradient of each adapter


def attention_cases(size: Size) -> Cases:
    """Loss and gradients of both objectives, then each kernel alone at the 8B model's heads."""
    yield "sft", partial(compared, size, "sft")
    yield "dpo, shared prompts", partial(compared, size, "dpo")
    for name in KERNELS:
        yield name, partial(kernel, size, name)


def compared(size: Size, objective: str, *words: str) -> dict[str, Any]:
    """How far a packed step on the device is from single sequences in float32 on a CPU, in which transformers attends.

    Beside it single sequences on the device, which differ by the rounding of its arithmetic alone. Differences of a
    gradient are relative to its norm; the adapter with the largest counts.
    """
    recipe = recipe_of(size, objective, SMALL, "lora.lora_dropout=0", "loss.length_normalized=true", *words)
    config = config_of(size, SMALL)
    config.num_hidden_layers = min(LAYERS, config.num_hidden_layers)
    module = random_module(recipe, config, device()).cpu()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=ADAPTERS)
    examples = random_examples(size, recipe, config.vocab_size, EXAMPLES)
    expected = run(module_float := deepcopy(module).float(), lambda: loss_alone(module_float, recipe, examples))
    fabric = training_fabric(recipe)
    model, batch = fabric.setup_module(module), pack(examples).to(fabric.device)

    packed = run(module, lambda: model.training_step(batch)["loss"])
    rounded = run(module, lambda: loss_alone(module, recipe, examples))
    return {
        "tokens": batch.tokens,
        "sequences": len(batch.layout.lengths),
        "loss": packed[0],
        **difference("packed", packed, expected),
        **difference("alone", rounded, expected),
    }


def run(module: CausalLMModule, loss: Callable[[], Tensor]) -> Run:
    """Forward and backward."""
    module.zero_grad()
    value = loss()
    value.backward()
    gradients = {name: p.grad.float().cpu() for name, p in module.named_parameters() if p.grad is not None}
    return float(value.detach()), gradients


def loss_alone(module: CausalLMModule, recipe: TrainRecipe, examples: Sequence[Example]) -> Tensor:
    """The length-normalised loss, written out, from one sequence after the other."""
    module.base.set_attn_implementation("sdpa")
    scores = [torch.stack([mean_logprob(module, e.prompt, answer) for answer in e.answers]) for e in examples]
    if recipe.objective.value == "sft":
        return -torch.stack(scores).sum()
    return -sum(functional.logsigmoid(chosen - rejected) for chosen, rejected in scores)


def mean_logprob(module: CausalLMModule, prompt: list[int], answer: list[int]) -> Tensor:
    """The mean log-probability of an answer's tokens."""
    ids = torch.tensor([[*prompt, *answer]], device=module.base.device)
    logits = module.base(input_ids=ids[:, :-1], use_cache=False).logits[0, len(prompt) - 1 :]
    return logits.float().log_softmax(dim=-1).gather(1, ids[0, len(prompt) :, None]).mean()


def difference(name: str, found: Run, expected: Run) -> dict[str, Any]:
    """Relative differences of the loss and of the worst adapter's gradient."""
    assert found[1].keys() == expected[1].keys()
    apart = {key: float((found[1][key] - grad).norm() / grad.norm()) for key, grad in expected[1].items()}
    worst = max(apart, key=lambda key: apart[key])
    return {
        f"{name}: loss differs by": abs(found[0] / expected[0] - 1),
        f"{name}: a gradient differs by": apart[worst],
        f"{name}: of": worst.replace("model.base_model.model.model.", ""),
    }


# --- Kernels --------------------------------------------------------------------------------------------------------


def flex(heads: Heads, sizes: tuple[int, ...], scaling: float | None) -> Tensor:
    """FlexAttention with a mask of sequences."""
    from torch.nn.attention.flex_attention import create_block_mask

    total, on = sum(sizes), heads[0].device
    sequence = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)).to(on)
    sees = lambda _, __, query, key: (sequence[query] == sequence[key]) & (query >= key)  # noqa: E731
    mask = create_block_mask(sees, None, None, total, total, device=on)
    return compiled_flex()(*heads, block_mask=mask, scale=scaling, enable_gqa=True).transpose(1, 2)


@cache
def compiled_flex() -> Callable[..., Tensor]:
    """FlexAttention, fused."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


KERNELS = {"one by one": attention._one_by_one, "varlen_attn": attention._varlen, "flex_attention": flex}


def kernel(size: Size, name: str) -> dict[str, Any]:
    """Forward and backward in bfloat16 over a micro-batch of 16 sequences, and how far it is from float32.

    Raises:
        UserError: the kernel needs a GPU.
    """
    on = device()
    if name != "one by one" and on.type != "cuda":
        raise UserError(f"{name} needs a GPU")
    config, sizes = config_of(size, LARGE), tuple(lengths(16, size.prompt + size.target, size.max_length))
    torch.manual_seed(0)
    counts = (config.num_attention_heads, *[config.num_key_value_heads] * 2)
    exact = [torch.randn(1, count, sum(sizes), config.head_dim, device=on, requires_grad=True) for count in counts]
    heads = [tensor.detach().bfloat16().requires_grad_() for tensor in exact]
    expected = gradients(attention._one_by_one, exact, sizes)
    found = gradients(KERNELS[name], heads, sizes)
    began = time.perf_counter()
    for _ in range(ROUNDS):
        gradients(KERNELS[name], heads, sizes)
    float(heads[0].grad.sum())  # waits for the device
    seconds = (time.perf_counter() - began) / ROUNDS
    apart = [float((a.float() - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True)]
    return {"tokens": sum(sizes), "ms": 1000 * seconds, "output and gradients differ by": max(apart)}


def gradients(attend: Callable[..., Tensor], heads: Heads, sizes: tuple[int, ...]) -> list[Tensor]:
    """The output, and the gradients of its sum of squares."""
    for tensor in heads:
        tensor.grad = None
    output = attend(heads, sizes, None)
    output.float().square().sum().backward()
    return [output.detach(), *(tensor.grad for tensor in heads)]
