"""A plain call of `model.generate`, the baseline of the engines."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
from transformers import GenerationConfig, PreTrainedModel

from tale.data.chat import Chat
from tale.inference import Completion, Engine, Request, Sampling
from tale.inference.requests import RequestSource, request_source


class Plain:
    """Greedy `model.generate` on left-padded batches, as they come; `seconds` spent inside it for `tokens`."""

    tokenizer = "the model's own"

    def __init__(self, model: PreTrainedModel, chat: Chat, batch_size: int):
        self.model, self.chat, self.batch_size = model.eval(), chat, batch_size
        self.seconds, self.tokens = 0.0, 0

    def generate(self, more: RequestSource) -> Iterator[tuple[int, Completion]]:
        """Yield `(number, completion)` in the order of the requests, which all have the same limit."""
        count = 0
        while requests := more():
            for start in range(0, len(requests), self.batch_size):
                batch = requests[start : start + self.batch_size]
                yield from enumerate(self._answered(batch), count)
                count += len(batch)

    def _answered(self, requests: Sequence[Request]) -> Iterator[Completion]:
        end, tokenizer = self.chat.end_id, self.chat.tokenizer
        limit = requests[0].sampling.max_tokens
        config = GenerationConfig(do_sample=False, max_new_tokens=limit, eos_token_id=end, pad_token_id=end)
        prompts = [self.chat.prompt_ids(request.prompt) for request in requests]
        batch = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
        began = time.monotonic()
        with torch.inference_mode():
            output = self.model.generate(**batch, generation_config=config)
        self.seconds += time.monotonic() - began
        for i, row in enumerate(output[:, batch["input_ids"].shape[1] :].tolist()):
            ids = row[: row.index(end) + 1] if end in row else row
            self.tokens += len(ids)
            finish = "stop" if end in row else "length"
            yield Completion(self.chat.decode(ids), len(ids), finish, len(prompts[i]), ids=tuple(ids))


def first_call(engine: Engine) -> None:
    """Have done what only an engine's first call does, and not counted."""
    list(engine.generate(request_source([Request.user("Hello.", Sampling(4))])))
    if isinstance(engine, Plain):
        engine.seconds, engine.tokens = 0.0, 0
