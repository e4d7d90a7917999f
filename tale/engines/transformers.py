"""Batched generation with transformers' own `generate`, on any device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch.nn import functional
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from tale.chat import Chat
from tale.engines import attention
from tale.engines.base import Completion, Request, Sampling
from tale.errors import UserError

# Tokens between two looks at which rows have ended: a look costs little, an ended row costs a share of every step.
CHUNK = 16


class TransformersEngine:
    """Left-padded batches of prompts of similar length, greedy or sampled.

    A sampled token depends on (seed, prompt, sample, position) alone, so neither the batch nor its order changes it
    beyond the rounding of the model's own arithmetic.
    """

    def __init__(self, model: PreTrainedModel, chat: Chat, batch_size: int = 64, device: str = "auto"):
        self.model = model.to(find_device(device)).eval()
        if model.device.type == "cpu":
            model.set_attn_implementation(attention.NAME)
        self.chat = chat
        self.batch_size = batch_size
        eos = self.model.generation_config.eos_token_id
        self.stops = sorted({chat.end_id, *([eos] if isinstance(eos, int) else eos or ())})
        # Whatever decoding the checkpoint recommends (Llama 3.1: temperature 0.6, top-p 0.9) must not leak in.
        self.model.generation_config = GenerationConfig()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """Yield `(index, completion)`, longest prompts first.

        Raises:
            UserError: a prompt and the longest answer do not fit into the model's context.
        """
        prompts = [self.chat.prompt_ids(request.prompt) for request in requests]
        longest = max(map(len, prompts), default=0) + sampling.max_tokens
        if longest > (limit := self.model.config.max_position_embeddings):
            raise UserError(f"sampling.max_tokens: prompt and answer need {longest} tokens, the model has {limit}")
        order = sorted(range(len(requests)), key=lambda i: -len(prompts[i]))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            answers = self._answer([prompts[i] for i in batch], [requests[i] for i in batch], sampling)
            yield from zip(batch, answers, strict=True)

    @torch.inference_mode()
    def _answer(self, prompts: list[list[int]], requests: list[Request], sampling: Sampling) -> list[Completion]:
        """Generate `CHUNK` tokens at a time, and drop the rows that have ended: one long answer holds up no others."""
        width = max(map(len, prompts))
        pad = self.stops[0]
        ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=self.model.device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self.model.device)
        cache = DynamicCache(config=self.model.config)
        noise = SeededGumbel(requests, sampling) if sampling.temperature > 0 else None
        live = torch.arange(len(prompts), device=self.model.device)
        answers: dict[int, list[int]] = {}
        while len(live):
            chunk = min(CHUNK, width + sampling.max_tokens - ids.shape[1])
            config = GenerationConfig(do_sample=False, max_new_tokens=chunk, eos_token_id=self.stops, pad_token_id=pad)
            ids = self.model.generate(
                ids,
                attention_mask=mask,
                past_key_values=cache,
                generation_config=config,
                logits_processor=LogitsProcessorList([noise] if noise else []),
            )
            ended = torch.isin(ids[:, width:], torch.tensor(self.stops, device=ids.device)).any(dim=1)
            if ids.shape[1] == width + sampling.max_tokens:
                ended[:] = True
            answers |= dict(zip(live[ended].tolist(), ids[ended, width:].tolist(), strict=True))
            stay = (~ended).nonzero()[:, 0]
            live, ids = live[stay], ids[stay]
            mask = functional.pad(mask[stay], (0, ids.shape[1] - mask.shape[1]), value=1)
            cache.batch_select_indices(stay)
            if noise:
                noise.select(stay.tolist())
        return [self._completion(answers[row], len(prompt)) for row, prompt in enumerate(prompts)]

    def _completion(self, ids: list[int], prompt_tokens: int) -> Completion:
        end = next((i for i, token in enumerate(ids) if token in self.stops), None)
        kept = ids if end is None else ids[: end + 1]
        return Completion(self.chat.decode(kept), len(kept), "length" if end is None else "stop", prompt_tokens)


def find_device(name: str) -> torch.device:
    """The device of this name, or for "auto" a GPU where there is one.

    Raises:
        UserError: there is no such device.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"engine.device={name}: {reason}; auto takes what there is") from error


class SeededGumbel(LogitsProcessor):
    """Sampling at a temperature as an argmax: logits / T plus Gumbel noise, each row with a generator of its own."""

    def __init__(self, requests: Sequence[Request], sampling: Sampling):
        self.temperature = sampling.temperature
        self.generators = [
            torch.Generator().manual_seed(_seed(sampling.seed, request.prompt, request.sample)) for request in requests
        ]

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows only."""
        self.generators = [self.generators[row] for row in rows]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        noise = torch.stack([torch.empty(scores.shape[1]).exponential_(generator=g).log() for g in self.generators])
        return scores.float() / self.temperature - noise.to(scores.device)


def _seed(seed: int, prompt: str, sample: int) -> int:
    digest = hashlib.sha256(f"{seed}\n{sample}\n{prompt}".encode()).digest()
    return int.from_bytes(digest[:7], "big")
