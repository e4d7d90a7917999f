"""A plain call of `model.generate`, the baseline of the engines."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from tale.data.chat import Chat
from tale.inference import Completion, Engine, Request, Sampling
from tale.inference.requests import RequestSource, request_source

HELLO = Request.user("Hello.", Sampling(4))


class Plain:
    """Greedy `model.generate` on left-padded batches, as they come; `seconds` spent inside it for `tokens`.

    `how`: other fields of its GenerationConfig.
    """

    tokenizer = "the model's own"

    def __init__(self, model: PreTrainedModel, chat: Chat, batch_size: int, **how: Any):
        self.model, self.chat, self.batch_size, self.how = model.eval(), chat, batch_size, how
        self.seconds, self.tokens = 0.0, 0

    def generate(self, more: RequestSource) -> Iterator[tuple[int, Completion]]:
        """Yield `(number, completion)` in the order of the requests; a batch runs on to its longest answer."""
        count = 0
        while requests := more():
            for start in range(0, len(requests), self.batch_size):
                batch = requests[start : start + self.batch_size]
                yield from enumerate(self._answered(batch), count)
                count += len(batch)

    def _answered(self, requests: Sequence[Request]) -> Iterator[Completion]:
        end, limits = self.chat.end_id, [request.sampling.max_tokens for request in requests]
        config = GenerationConfig(
            do_sample=False, max_new_tokens=max(limits), eos_token_id=end, pad_token_id=end, **self.how
        )
        prompts = [self.chat.prompt_ids(request.prompt) for request in requests]
        width = max(map(len, prompts))
        ids = torch.tensor([[end] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        batch = {"input_ids": ids.to(self.model.device), "attention_mask": mask.to(self.model.device)}
        began = time.monotonic()
        with torch.inference_mode():
            output = self.model.generate(**batch, generation_config=config)
        self.seconds += time.monotonic() - began
        for i, (row, limit) in enumerate(zip(output[:, width:].tolist(), limits, strict=True)):
            ids = row[: row.index(end) + 1][:limit] if end in row else row[:limit]
            self.tokens += len(ids)
            finish = "stop" if end in ids else "length"
            yield Completion(self.chat.decode(ids), len(ids), finish, len(prompts[i]), ids=tuple(ids))


def first_call(engine: Engine, request: Request = HELLO) -> None:
    """Have done what only an engine's first call does, and not counted."""
    list(engine.generate(request_source([request])))
    if isinstance(engine, Plain):
        engine.seconds, engine.tokens = 0.0, 0
