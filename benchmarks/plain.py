"""`model.generate` as one would call it first: what the engines are measured against."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
from transformers import GenerationConfig, PreTrainedModel

from tale.chat import Chat
from tale.engines import Completion, Engine, Request, Sampling
from tale.engines.base import More, nothing


class Plain:
    """Greedy `model.generate` on left-padded batches, as they come; `seconds` spent inside it for `tokens`."""

    tokenizer = "the model's own"

    def __init__(self, model: PreTrainedModel, chat: Chat, batch_size: int):
        self.model, self.chat, self.batch_size = model.eval(), chat, batch_size
        self.seconds, self.tokens = 0.0, 0

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, more: More = nothing
    ) -> Iterator[tuple[int, Completion]]:
        """Yield `(index, completion)` in the order of the requests; `more` is left uncalled."""
        end, tokenizer = self.chat.end_id, self.chat.tokenizer
        config = GenerationConfig(
            do_sample=False, max_new_tokens=sampling.max_tokens, eos_token_id=end, pad_token_id=end
        )
        for start in range(0, len(requests), self.batch_size):
            prompts = [self.chat.prompt_ids(request.prompt) for request in requests[start : start + self.batch_size]]
            batch = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
            began = time.monotonic()
            with torch.inference_mode():
                output = self.model.generate(**batch, generation_config=config)
            self.seconds += time.monotonic() - began
            for i, row in enumerate(output[:, batch["input_ids"].shape[1] :].tolist()):
                ids = row[: row.index(end) + 1] if end in row else row
                self.tokens += len(ids)
                finish = "stop" if end in row else "length"
                yield start + i, Completion(self.chat.decode(ids), len(ids), finish, len(prompts[i]), ids=tuple(ids))


def first_call(engine: Engine) -> None:
    """Have done what only an engine's first call does, and not counted."""
    list(engine.generate([Request("Hello.")], Sampling(4)))
    if isinstance(engine, Plain):
        engine.seconds, engine.tokens = 0.0, 0
