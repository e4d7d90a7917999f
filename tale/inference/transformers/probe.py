"""Proof that an architecture answers as in plain `generate`: the transformers engine on a tiny copy of it.

On a CPU the engine has attention and linear layers of its own, and everywhere its own cache, known prefixes and rows
that come and go. Layers with a state, or attention with more than scores and a mask, would answer otherwise.
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
from tale.inference.requests import Message, Request, Sampling, once
from tale.inference.transformers.engine import CHUNK, TransformersEngine
from tale.inference.transformers.rows import Rows
from tale.models.probe import refusing
from tale.models.tiny import VOCABULARY, Architecture, tiny_copy

TOLERANCE = 1e-3  # of the range of the logits; float32's rounding is a tenth of it at most
SHARED, RESTS = 40, (12, 3, 7, 9)  # ids that all prompts begin with, enough to be kept, and ids that each goes on with
TOKENS = CHUNK + 4

# Shape suffixes: T tokens of an answer, V vocabulary.


def prove_generation(config: PreTrainedConfig, on_cpu: bool = True) -> None:
    """Refuse an architecture on which the transformers engine answers otherwise than plain `generate`.

    `on_cpu`: with the engine's own attention and linear layers, too.

    Raises:
        UserError: it does, or a tiny copy can be neither built nor run.
    """
    difference = compare_generation(config, on_cpu)
    if not difference < TOLERANCE:
        raise UserError(
            f"model.name_or_path: {config.model_type} is not known to engine.kind=transformers: on a tiny copy its "
            f"logits differ from plain generate's by {difference:.2g} of their range; take engine.kind=vllm, or openai"
        )


def compare_generation(config: PreTrainedConfig, on_cpu: bool = True) -> float:
    """How far apart logits are in greedy answers to left-padded prompts that begin alike, as a share of their range.

    Raises:
        UserError: a tiny copy can be neither built nor run.
    """
    return _compare(Architecture.of(config), on_cpu)


class _Ids(Chat):
    """Prompts written as ids."""

    def __init__(self, end: int):
        self.end = end

    def conversation_ids(self, messages: Sequence[Message]) -> list[int]:
        return json.loads(messages[0].content)

    def ends(self, eos: int | list[int] | None) -> list[int]:
        return [self.end]

    def decode(self, *_: object) -> str:
        return ""


class _Recording(TransformersEngine):
    """Keeps the logits of each prompt's answer."""

    logits: list[list[Tensor]]

    def _advance(self, rows: Rows) -> None:
        def keep(_: nn.Module, __: object, output: ModelOutput) -> None:
            for prompt, logits_V in zip(rows.prompts, output["logits"][:, -1], strict=True):
                self.logits[prompt.index].append(logits_V.clone())

        hook = self.model.register_forward_hook(keep)
        super()._advance(rows)
        hook.remove()


@cache  # a process may ask for the same more than once
def _compare(architecture: Architecture, on_cpu: bool) -> float:
    config, generator = architecture.config, torch.Generator().manual_seed(0)
    name = config.model_type
    ids = lambda count: torch.randint(1, VOCABULARY, (count,), generator=generator).tolist()  # noqa: E731
    shared = ids(SHARED)
    prompts = [shared + ids(rest) for rest in RESTS]
    with refusing(f"{name}: no tiny copy of this architecture can be built, to prove on it what is generated"):
        plain, model = (tiny_copy(config, sys.maxsize, attention) for attention in ("eager", None))
    with refusing(f"{name}: a tiny copy of this architecture does not run in plain transformers"):
        expected = [_plain(plain, prompt) for prompt in prompts]
    end = int(expected[0][TOKENS // 4].argmax())  # so that an answer ends early and another prompt takes its row
    with refusing(f"{name}: this architecture does not run with the cache and rows of engine.kind=transformers"):
        engine = _Recording(model, _Ids(end), batch_size=2, device="cpu", own_layers=on_cpu)
        engine.logits = [[] for _ in prompts]
        requests = [Request.user(json.dumps(prompt), Sampling(TOKENS)) for prompt in prompts]
        answers = dict(engine.generate(once(requests)))
        ours = [torch.stack(logits) for logits in engine.logits]
    return max(_difference(answers[i].ids or (), ours[i], expected[i]) for i in range(len(prompts)))


@torch.inference_mode()
def _plain(model: PreTrainedModel, prompt: list[int]) -> Tensor:
    """Logits of each token of the greedy answer to one prompt alone, shape [T, V]."""
    given = torch.tensor([prompt])
    config = GenerationConfig(
        do_sample=False, max_new_tokens=TOKENS, pad_token_id=0, output_logits=True, return_dict_in_generate=True
    )
    model.generation_config = GenerationConfig()
    answer = model.generate(given, attention_mask=torch.ones_like(given), generation_config=config)  # type: ignore[operator]
    return torch.cat(answer.logits)


def _difference(ids: Sequence[int], ours_TV: Tensor, theirs_TV: Tensor) -> float:
    """The largest one up to the token where answers part: there logits differ already, or it is a tie."""
    chosen = theirs_TV.argmax(dim=-1).tolist()
    same = next((t for t, token in enumerate(ids) if token != chosen[t]), len(ids) - 1) + 1
    apart_T = (ours_TV[:same] - theirs_TV[:same]).abs().amax(dim=-1)
    return float((apart_T / (theirs_TV[:same].amax(dim=-1) - theirs_TV[:same].amin(dim=-1))).max())
