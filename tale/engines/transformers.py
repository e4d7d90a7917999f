"""Batched generation with transformers' own `generate`, on any device."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import torch
from transformers import Cache, GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from tale.chat import Chat
from tale.engines import attention
from tale.engines.base import Completion, Request, Sampling
from tale.engines.rows import RoomyLayer, Rows
from tale.errors import UserError

# Tokens between two looks at which rows have ended: a look costs little, an ended row costs a share of every step.
CHUNK = 16
# Share of a batch that has to be free before others are begun: joining copies the keys and values of all rows.
REFILL = 0.125
# As indices, for the head to see the last column alone: given as a number, it copies its weight once for each row.
LAST = torch.tensor([-1])


class TransformersEngine:
    """Left-padded batches, greedy or sampled; a row whose answer has ended makes room for the next prompt.

    A sampled token depends on (seed, prompt, sample, position) alone, so neither the batch nor its order changes it
    beyond the rounding of the model's own arithmetic.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        chat: Chat,
        batch_size: int = 64,
        device: str = "auto",
        tokenizer: str = "the model's own",
    ):
        self.tokenizer = tokenizer
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
        """Yield `(index, completion)`; the longest prompts are begun first.

        Raises:
            UserError: a prompt and the longest answer do not fit into the model's context.
        """
        prompts = [self.chat.prompt_ids(request.prompt) for request in requests]
        longest = max(map(len, prompts), default=0) + sampling.max_tokens
        if longest > (limit := self.model.config.max_position_embeddings):
            raise UserError(f"sampling.max_tokens: prompt and answer need {longest} tokens, the model has {limit}")
        waiting = deque(sorted(range(len(requests)), key=lambda i: -len(prompts[i])))
        live: Rows | None = None
        while waiting or live:
            room = self.batch_size - len(live or ())
            if waiting and (not live or room >= self.batch_size * REFILL):
                begun = [waiting.popleft() for _ in range(min(room, len(waiting)))]
                generators = [torch.Generator().manual_seed(requests[i].seed(sampling)) for i in begun]
                fresh = self._begin(begun, [prompts[i] for i in begun], generators)
                live = live.join(fresh) if live else fresh
            assert live
            self._advance(live, sampling)
            ends = [self._end(answer, sampling.max_tokens) for answer in live.answers]
            for i, answer, end in zip(live.requests, live.answers, ends, strict=True):
                if end:
                    yield i, self._completion(answer[:end], len(prompts[i]))
            going_on = [row for row, end in enumerate(ends) if not end]
            live = live.select(going_on) if going_on else None

    @torch.inference_mode()
    def _begin(self, requests: list[int], prompts: list[list[int]], generators: list[torch.Generator]) -> Rows:
        """Rows of these prompts, all but the last token of each in the cache."""
        device, width = self.model.device, max(map(len, prompts))
        ids_RW = torch.tensor([[self.stops[0]] * (width - len(p)) + p for p in prompts], device=device)
        mask_RW = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        cache = Cache(layer_class_to_replicate=RoomyLayer)
        if width > 1:
            self.model(
                ids_RW[:, :-1],
                attention_mask=mask_RW[:, :-1],
                position_ids=(mask_RW.cumsum(1) - 1).clamp(min=0)[:, :-1],
                past_key_values=cache,
                logits_to_keep=LAST,
            )
        return Rows(requests, [[] for _ in prompts], generators, ids_RW, mask_RW, cache)

    @torch.inference_mode()
    def _advance(self, rows: Rows, sampling: Sampling) -> None:
        """Generate the next `CHUNK` tokens of every row, fewer if none wants as many."""
        wanted = sampling.max_tokens - min(map(len, rows.answers))
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=min(CHUNK, wanted),
            eos_token_id=self.stops,
            pad_token_id=self.stops[0],
        )
        noise = [SeededGumbel(rows.generators, sampling.temperature)] if sampling.temperature > 0 else []
        rows.extend(
            self.model.generate(
                rows.ids_RW,
                attention_mask=rows.mask_RW,
                past_key_values=rows.cache,
                generation_config=config,
                logits_processor=LogitsProcessorList(noise),
                logits_to_keep=LAST,
            )
        )

    def _end(self, answer: list[int], limit: int) -> int | None:
        """How many ids the answer has, its end included; None while it goes on."""
        end = next((i for i, token in enumerate(answer[:limit], 1) if token in self.stops), None)
        return end or (limit if len(answer) >= limit else None)

    def _completion(self, ids: list[int], prompt_tokens: int) -> Completion:
        return Completion(self.chat.decode(ids), len(ids), "stop" if ids[-1] in self.stops else "length", prompt_tokens)


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

    def __init__(self, generators: Sequence[torch.Generator], temperature: float):
        self.generators, self.temperature = generators, temperature

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        noise = torch.stack([torch.empty(scores.shape[1]).exponential_(generator=g).log() for g in self.generators])
        return scores.float() / self.temperature - noise.to(scores.device)
