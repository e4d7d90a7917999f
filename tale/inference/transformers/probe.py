"""Verify an architecture for generation: the transformers engine against plain `generate`, on a tiny copy.

The engine has its own attention and linear layers on a CPU, and its own cache, prefix cache and rows that join and
leave on all devices. With stateful layers, or attention with more than scores and a mask, its answers would differ.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from tale.data.chat import Chat
from tale.errors import UserError
from tale.inference.requests import Message, Request, Sampling, request_source
from tale.inference.transformers.engine import CHUNK, TransformersEngine
from tale.inference.transformers.rows import LiveRows
from tale.models.probe import unsupported_on_error
from tale.models.tiny import VOCABULARY, Architecture, tiny_copy

TOLERANCE = 1e-3  # of the range of the logits; float32's rounding is a tenth of it at most
SHARED, RESTS = 40, (12, 3, 7, 9)  # ids that all prompts share, enough to be cached, and further ids of each
TOKENS = CHUNK + 4

# Shape suffixes: T tokens of an answer, V vocabulary.


def verify_generation(config: PreTrainedConfig, on_cpu: bool = True) -> None:
    """Refuse an architecture for which the transformers engine differs from plain `generate`.

    `on_cpu`: with the engine's attention and linear layers for CPUs.

    Raises:
        UserError: it differs, or a tiny copy cannot be built or run.
    """
    difference = compare_generation(config, on_cpu)
    if not difference < TOLERANCE:
        raise UserError(
            f"model.name_or_path: {config.model_type} is not supported by engine.kind=transformers: on a tiny copy its "
            f"logits differ from plain generate's by {difference:.2g} of their range; use engine.kind=vllm, or openai"
        )


def compare_generation(config: PreTrainedConfig, on_cpu: bool = True) -> float:
    """The largest difference of logits in greedy answers to left-padded prompts with a common prefix, over their range.

    Raises:
        UserError: a tiny copy cannot be built or run.
    """
    return _compare(Architecture.of(config), on_cpu)


class IdsChat(Chat):
    """A tokenizer of prompts that are lists of ids."""

    def __init__(self, end: int):
        self.end_id = end

    def conversation_ids(self, messages: Sequence[Message]) -> list[int]:
        return json.loads(messages[0].content)

    def stop_token_ids(self, eos: int | list[int] | None) -> list[int]:
        return [self.end_id]

    def decode(self, *_: object) -> str:
        return ""


class _Recording(TransformersEngine):
    """An engine that records the logits of each prompt's answer."""

    logits: list[list[Tensor]]

    def _advance(self, rows: LiveRows) -> None:
        def keep(_: nn.Module, __: object, output: ModelOutput) -> None:
            for prompt, logits_V in zip(rows.prompts, output["logits"][:, -1], strict=True):
                self.logits[prompt.index].append(logits_V.clone())

        hook = self.model.register_forward_hook(keep)
        super()._advance(rows)
        hook.remove()


@cache  # a process may check the same architecture more than once
def _compare(architecture: Architecture, on_cpu: bool) -> float:
    config, generator = architecture.config, torch.Generator().manual_seed(0)
    name = config.model_type
    ids = lambda count: torch.randint(1, VOCABULARY, (count,), generator=generator).tolist()  # noqa: E731
    shared = ids(SHARED)
    prompts = [shared + ids(rest) for rest in RESTS]
    with unsupported_on_error(f"{name}: no tiny copy of this architecture can be built to verify generation"):
        plain, model = (tiny_copy(config, sys.maxsize, attention) for attention in ("eager", None))
    with unsupported_on_error(f"{name}: a tiny copy of this architecture does not run in plain transformers"):
        expected = [_plain(plain, prompt) for prompt in prompts]
    end = int(expected[0][TOKENS // 4].argmax())  # so that one answer ends early and another prompt takes its row
    with unsupported_on_error(
        f"{name}: this architecture does not run with the cache and rows of engine.kind=transformers"
    ):
        engine = _Recording(model, IdsChat(end), batch_size=2, device="cpu", cpu_layers=on_cpu)
        engine.logits = [[] for _ in prompts]
        requests = [Request.user(json.dumps(prompt), Sampling(TOKENS)) for prompt in prompts]
        answers = dict(engine.generate(request_source(requests)))
        ours = [torch.stack(logits) for logits in engine.logits]
    return max(_difference(answers[i].ids or (), ours[i], expected[i]) for i in range(len(prompts)))


@torch.inference_mode()
def _plain(model: PreTrainedModel, prompt: list[int]) -> Tensor:
    """Logits of each token of the greedy answer to a single prompt, shape [T, V]."""
    given = torch.tensor([prompt])
    config = GenerationConfig(
        do_sample=False, max_new_tokens=TOKENS, pad_token_id=0, output_logits=True, return_dict_in_generate=True
    )
    model.generation_config = GenerationConfig()
    answer = model.generate(given, attention_mask=torch.ones_like(given), generation_config=config)  # type: ignore[operator]
    return torch.cat(answer.logits)


def _difference(ids: Sequence[int], ours_TV: Tensor, theirs_TV: Tensor) -> float:
    """The largest difference up to the first token that differs: there logits differ already, or it is a tie."""
    chosen = theirs_TV.argmax(dim=-1).tolist()
    same = next((t for t, token in enumerate(ids) if token != chosen[t]), len(ids) - 1) + 1
    apart_T = (ours_TV[:same] - theirs_TV[:same]).abs().amax(dim=-1)
    return float((apart_T / (theirs_TV[:same].amax(dim=-1) - theirs_TV[:same].amin(dim=-1))).max())
