"""Verify an architecture for training: packed rows against single sequences in plain transformers, on a tiny copy.

Layers may ignore which sequence a position belongs to, logits may be scaled, capped or biased, and a forward may not
accept a packed row. As no list of architectures is complete, they are compared before weights are loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, partial

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from tale.config.training import LoraConfig, LossConfig, OptimizerConfig
from tale.data.examples import Example, pack
from tale.errors import UserError
from tale.models.lora import add_lora
from tale.models.modules import SFTModule
from tale.models.tiny import VOCABULARY, Architecture, layers_of, narrowest_window, tiny_copy

TOLERANCE = 1e-3  # of the largest value; float32's rounding is a tenth of it at most
SPREAD = 0.1  # standard deviation of the adapters' B weights, which are initialised to 0
SHARED = 3  # ids that both prompts share
LENGTHS = ((9, (7, 11)), (2, (10, 6)))  # of the prompts' rests, and answers: together longer than a copy's window

# Shape suffixes: A answers, S positions of all sequences concatenated, H hidden width.


@dataclass(frozen=True)
class Differences:
    """The largest differences between packed and single sequences, as shares of the largest value."""

    logprobs: float
    gradients: float
    example: tuple[float, float]  # the log-probability that differs most: packed, single
    layer: str | None  # the first whose output differs

    @property
    def negligible(self) -> bool:
        """Whether the differences are due to rounding."""
        return max(self.logprobs, self.gradients) < TOLERANCE


def verify_training(config: PreTrainedConfig, lora: LoraConfig, longest: int) -> None:
    """Refuse an architecture for which training with sequences of up to `longest` tokens computes something else.

    Raises:
        UserError: it does, or a tiny copy cannot be built or run.
    """
    found = compare_training(config, lora, longest)
    if found.negligible:
        return
    window = narrowest_window(config) or longest
    keeps = window < longest and compare_training(config, lora, window).negligible
    where = f"from {found.layer} on" if found.layer else "behind its layers, in how its head makes logits"
    raise UserError(
        f"model.name_or_path: {config.model_type} is not known to training: on a tiny copy an answer's log-probability "
        f"is {found.example[0]:.3f} in a packed row and {found.example[1]:.3f} alone, and gradients differ by "
        f"{found.gradients:.2g} of the largest, {where}" + f"; data.max_length={window} keeps within its window" * keeps
    )


def compare_training(config: PreTrainedConfig, lora: LoraConfig, longest: int) -> Differences:
    """The differences of two packed examples, and of two packed pairs, to each of their sequences alone.

    Raises:
        UserError: a tiny copy cannot be built or run.
    """
    settings = json.dumps(asdict(replace(lora, init_from=None, lora_dropout=0.0)))
    return _compare(Architecture.of(config), settings, longest)


@contextmanager
def unsupported_on_error(message: str) -> Iterator[None]:
    """Turn any exception of a library into a UserError: the architecture cannot be used.

    Raises:
        UserError: an exception was raised in the block.
    """
    try:
        yield
    except Exception as error:
        reason = (str(error).strip() or "no reason given").splitlines()[0][:200]
        raise UserError(f"model.name_or_path: {message} ({type(error).__name__}: {reason})") from error


@dataclass(frozen=True)
class _Run:
    """The answers' log-probabilities, the adapters' gradients, and the output of each layer."""

    logprobs_A: Tensor
    gradients: Tensor
    layers_SH: list[Tensor]


@cache  # a process may check the same architecture more than once
def _compare(architecture: Architecture, lora: str, longest: int) -> Differences:
    name = architecture.config.model_type
    with unsupported_on_error(f"{name}: no tiny copy of this architecture can be built to verify training"):
        base = tiny_copy(architecture.config, longest)
        layers = layers_of(base, base.config)
    model = _adapted(base, LoraConfig(**json.loads(lora)))
    cases = [_examples(sides=1), _examples(sides=2)]
    with unsupported_on_error(f"{name}: a tiny copy of this architecture does not run in plain transformers"):
        alone = [_run(model, layers, partial(_alone, base, made)) for made in cases]
        seeing = _sees(base, *cases[0])
    if not seeing:
        raise UserError(f"model.name_or_path: {name}: on a tiny copy answers do not depend on earlier tokens")
    with unsupported_on_error(f"{name}: this architecture does not take packed rows"):
        module = SFTModule(model, LossConfig(), OptimizerConfig()).eval()
        packed = [_run(model, layers, partial(module.logprobs, pack(made))) for made in cases]
        orders = [pack(made).layout.order_S for made in cases]
        names = [f"layer {i} ({type(layer).__name__})" for i, layer in enumerate(layers)]
        runs = zip(packed, alone, orders, strict=True)
        found = [_differences(ours, theirs, order, names) for ours, theirs, order in runs]
    return max(found, key=lambda one: one.gradients)


def _adapted(base: PreTrainedModel, lora: LoraConfig) -> PeftModel:
    """The model with adapters that are not 0."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        model = add_lora(base, lora, "tiny copy").eval()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(SPREAD * torch.randn_like(parameter))
    return model


def _examples(sides: int) -> list[Example]:
    generator = torch.Generator().manual_seed(sides)
    ids = lambda count: torch.randint(1, VOCABULARY, (count,), generator=generator).tolist()  # noqa: E731
    shared = ids(SHARED)
    return [Example(str(rest), shared + ids(rest), tuple(map(ids, answers[:sides]))) for rest, answers in LENGTHS]


def _alone(base: PreTrainedModel, examples: list[Example]) -> Tensor:
    """Log-probabilities of single sequences, shape [A] in a batch's order, from the logits of the model's forward."""
    logprobs = [[_logprobs(base, e.prompt, answer).sum() for answer in e.answers] for e in examples]
    return torch.stack([one for side in zip(*logprobs, strict=True) for one in side])


@torch.no_grad()
def _sees(base: PreTrainedModel, one: Example, other: Example) -> bool:
    """Whether an answer's log-probabilities change if it attends to another example."""
    seeing = _logprobs(base, [*one.prompt, *one.answers[0], *other.prompt], other.answers[0])
    return _apart(seeing, _logprobs(base, other.prompt, other.answers[0])) > TOLERANCE


def _logprobs(base: PreTrainedModel, prompt: list[int], answer: list[int]) -> Tensor:
    """The log-probability of each token of one answer."""
    logits = base(input_ids=torch.tensor([[*prompt, *answer[:-1]]]), use_cache=False).logits[0, len(prompt) - 1 :]
    return logits.log_softmax(dim=-1).gather(1, torch.tensor(answer)[:, None])


def _run(model: PeftModel, layers: nn.ModuleList, logprobs: Callable[[], Tensor]) -> _Run:
    """Run forward and backward; answers have different weights, so that exchanged ones are noticed."""
    seen: list[list[Tensor]] = [[] for _ in layers]

    def note(outputs: list[Tensor], _: nn.Module, __: object, output: Tensor | tuple[Tensor, ...]) -> None:
        outputs.append((output[0] if isinstance(output, tuple) else output).detach())

    hooks = [layer.register_forward_hook(partial(note, outputs)) for layer, outputs in zip(layers, seen, strict=True)]
    model.zero_grad()
    values_A = logprobs()
    (values_A * torch.arange(1, len(values_A) + 1)).sum().backward()
    for hook in hooks:
        hook.remove()
    trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
    gradients = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained]
    return _Run(values_A.detach(), torch.cat(gradients), [torch.cat(outputs, dim=1)[0] for outputs in seen])


def _differences(packed: _Run, alone: _Run, order_S: Tensor | None, names: list[str]) -> Differences:
    places = slice(None) if order_S is None else order_S
    layers = zip(names, packed.layers_SH, alone.layers_SH, strict=True)
    worst = int((packed.logprobs_A - alone.logprobs_A).abs().argmax())
    return Differences(
        _apart(packed.logprobs_A, alone.logprobs_A),
        _apart(packed.gradients, alone.gradients),
        (float(packed.logprobs_A[worst]), float(alone.logprobs_A[worst])),
        next((name for name, ours, theirs in layers if _apart(ours[places], theirs) > TOLERANCE), None),
    )


def _apart(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference as a share of the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())
