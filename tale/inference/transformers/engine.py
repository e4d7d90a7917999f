"""Batched generation with transformers' own `generate`, on any device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from tale.data.chat import Chat
from tale.errors import UserError
from tale.inference.ends import ended
from tale.inference.requests import Answers, Completion, More, Request
from tale.inference.room import too_long
from tale.inference.transformers import attention
from tale.inference.transformers.linear import reorder
from tale.inference.transformers.prefixes import Prefixes
from tale.inference.transformers.rows import Prompt, Rows
from tale.models.base import context_of

# Tokens between two looks at which rows have ended: a look costs little, an ended row costs a share of every step.
CHUNK = 8
# Positions, padding included, that prompts are computed in at once: alike in length they need little padding.
PREFILL = 2048
# Share of a batch that has to be free before others are begun: joining copies the keys and values of all rows.
REFILL = 0.125
# As indices, for the head to see the last column alone: given as a number, it copies its weight once for each row.
LAST = torch.tensor([-1])
NONE = LAST[:0]


class TransformersEngine:
    """Left-padded batches, greedy or sampled; a row whose answer has ended makes room for the next prompt.

    A sampled token depends on (seed, prompt, sample, position) alone, so neither the batch nor its order changes it
    beyond the rounding of the model's own arithmetic. `own_layers`: attention and linear layers that are made for a
    CPU, by default on one.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        chat: Chat,
        batch_size: int = 64,
        device: str = "auto",
        tokenizer: str = "the model's own",
        prefix_cache: float = 2.0,
        own_layers: bool | None = None,
    ):
        self.tokenizer = tokenizer
        self.model = model.to(find_device(device)).eval()  # type: ignore[arg-type]
        if model.device.type == "cpu" if own_layers is None else own_layers:
            model.set_attn_implementation(attention.NAME)
            reorder(model)
        self.chat = chat
        self.batch_size = batch_size
        self.prefixes = Prefixes(prefix_cache * 1e9)
        self.context = context_of(model.config)
        self.stops = chat.ends(self.model.generation_config.eos_token_id)
        # Whatever decoding the checkpoint recommends (Llama 3.1: temperature 0.6, top-p 0.9) must not leak in.
        self.model.generation_config = GenerationConfig()

    def generate(self, more: More) -> Answers:
        """Yield `(number, completion)`; of the requests at hand the longest prompts are begun first.

        A prompt that does not fit into the model's context with the longest answer is refused.
        """
        waiting: list[Prompt] = []
        count, live = 0, None
        while True:
            room = self.batch_size - len(live or ())
            if not live or room >= self.batch_size * REFILL:
                if len(waiting) < room and (further := more()):
                    new, refused = self._encoded(further, count)
                    yield from refused
                    waiting += new
                    count += len(further)
                begun, waiting = waiting[:room], waiting[room:]
                if begun:
                    live = Rows.joined([*([live] if live else ()), *map(self._begin, _alike(begun))])
            if not live:
                return
            self._advance(live)
            done = list(map(self._completion, live.prompts, live.answers, live.logprobs))
            for prompt, completion in zip(live.prompts, done, strict=True):
                if completion:
                    yield prompt.index, completion
            going_on = [row for row, completion in enumerate(done) if not completion]
            live = live.select(going_on) if going_on else None

    def _encoded(self, requests: Sequence[Request], count: int) -> tuple[list[Prompt], list[tuple[int, Completion]]]:
        """The requests' prompts, numbered from `count`, the longest first; and those that are too long, refused."""
        prompts: list[Prompt] = []
        refused: list[tuple[int, Completion]] = []
        for i, request in enumerate(requests, count):
            ids = tuple(self.chat.conversation_ids(request.messages))
            if why := too_long(len(ids), request.sampling.max_tokens, self.context):
                refused.append((i, Completion.refused(why)))
            else:
                prompts.append(Prompt(i, ids, request))
        prompts.sort(key=lambda prompt: -len(prompt.ids))
        return prompts, refused

    @torch.inference_mode()
    def _begin(self, prompts: list[Prompt]) -> Rows:
        """Rows of these prompts, all but the last token of each in the cache; equal prompts are computed once."""
        unique = list(dict.fromkeys(prompt.ids for prompt in prompts))
        known = [self.prefixes.find(prompt) for prompt in unique]
        width = max(len(prompt) - len(prefix) for prompt, prefix in zip(unique, known, strict=True))
        used = [prefix.first(len(prompt) - width) for prompt, prefix in zip(unique, known, strict=True)]
        rows = Rows.of(unique, used, self.model.device)
        before = rows.cache.get_seq_length()
        if rows.ids_RW.shape[1] - before > 1:
            self.model(
                rows.ids_RW[:, before:-1],
                attention_mask=rows.mask_RW[:, :-1],
                position_ids=(rows.mask_RW.cumsum(1) - 1).clamp(min=0)[:, before:-1],
                past_key_values=rows.cache,
                logits_to_keep=NONE,
            )
        for row, (prompt, prefix) in enumerate(zip(unique, known, strict=True)):
            self.prefixes.keep(prompt, len(prefix), partial(rows.columns, row))
        return rows.repeat([unique.index(prompt.ids) for prompt in prompts], prompts)

    @torch.inference_mode()
    def _advance(self, rows: Rows) -> None:
        """Generate the next `CHUNK` tokens of every row, fewer where all want fewer, or one has no room for them."""
        requests = [prompt.request for prompt in rows.prompts]
        wanted = max(r.sampling.max_tokens - len(answer) for r, answer in zip(requests, rows.answers, strict=True))
        longest = max(len(p.ids) + len(answer) for p, answer in zip(rows.prompts, rows.answers, strict=True))
        room = self.context - longest if self.context else wanted
        logprobs = any(request.logprobs for request in requests)
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=min(CHUNK, wanted, room),
            eos_token_id=self.stops,
            pad_token_id=self.stops[0],
            return_dict_in_generate=True,
            output_logits=logprobs,
        )
        temperatures = [request.sampling.temperature for request in requests]
        noise = [SeededGumbel(rows.generators, temperatures)] if any(temperatures) else []
        output = self.model.generate(
            rows.ids_RW,
            attention_mask=rows.mask_RW,
            past_key_values=rows.cache,
            generation_config=config,
            logits_processor=LogitsProcessorList(noise),
            logits_to_keep=LAST,
        )
        rows.extend(output.sequences, output.logits if logprobs else ())

    def _completion(self, prompt: Prompt, generated: list[int], logprobs: list[float]) -> Completion | None:
        """The answer of a row; None while it has not ended."""
        answer = ended(prompt.request, generated, self.chat, self.stops)
        if answer is None:
            return None
        count = len(answer.ids)
        scored = tuple(logprobs[:count]) if prompt.request.logprobs else None
        return Completion(answer.text, count, answer.finish, len(prompt.ids), ids=answer.ids, logprobs=scored)


def _alike(prompts: Sequence[Prompt]) -> Iterator[list[Prompt]]:
    """Prompts in groups of at most `PREFILL` positions, the longest first; equal ones stay together."""
    group: list[Prompt] = []
    for prompt in sorted(prompts, key=lambda prompt: (-len(prompt.ids), prompt.ids)):
        if group and prompt.ids != group[-1].ids and (len(group) + 1) * len(group[0].ids) > PREFILL:
            yield group
            group = []
        group.append(prompt)
    yield group


def find_device(name: str) -> torch.device:
    """The device of this name, or for "auto" a GPU where there is one.

    Raises:
        UserError: there is no such device.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        made = torch.zeros(1, device=name)
        made.item()  # "meta" is a device that holds no values
        return made.device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"engine.device={name}: {reason}; auto takes what there is") from error


class SeededGumbel(LogitsProcessor):
    """Sampling as an argmax: logits / T plus Gumbel noise, each row with a generator and a temperature T of its own.

    At a temperature of 0 the logits stay as they are.
    """

    def __init__(self, generators: Sequence[torch.Generator], temperatures: Sequence[float]):
        self.rows = list(zip(generators, temperatures, strict=True))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.stack([_noisy(row_V.float(), *of) for row_V, of in zip(scores, self.rows, strict=True)])


def _noisy(scores_V: torch.Tensor, generator: torch.Generator, temperature: float) -> torch.Tensor:
    if temperature == 0:
        return scores_V
    noise_V = torch.empty(len(scores_V)).exponential_(generator=generator).log()
    return scores_V / temperature - noise_V.to(scores_V.device)
