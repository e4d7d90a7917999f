"""Batched generation with transformers' own `generate`, on any device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from tale.data.chat import Chat
from tale.errors import UserError
from tale.hardware.malloc import limit_freed_memory
from tale.inference.context_length import too_long
from tale.inference.requests import Completion, CompletionStream, Request, RequestSource
from tale.inference.stopping import stopped_answer
from tale.inference.transformers import attention
from tale.inference.transformers.linear import prepack_linear
from tale.inference.transformers.prefix_cache import PrefixCache
from tale.inference.transformers.rows import LiveRows, Prompt
from tale.models.base import max_model_len_of

# Tokens between two checks for ended rows: a check costs little, an ended row costs its part of every step.
CHUNK = 8
# Positions, padding included, of one prefill: prompts of similar length need little padding.
PREFILL = 2048
# Positions of padding in one prefill, unless an eighth of them is more: another forward pass costs as much.
PADDING = 64
# A prompt with no more than so many uncached ids is not added to the prefix cache.
NEAR = 32
# Share of a batch that must be free before new rows join: joining copies the keys and values of all rows.
REFILL = 0.125
# The last column as indices for `logits_to_keep`: as a number, the head would copy its weight for each row.
LAST = torch.tensor([-1])
NONE = LAST[:0]


class TransformersEngine:
    """Left-padded batches, greedy or sampled; the next prompt takes the row of an answer that has ended.

    A sampled token depends only on (seed, prompt, sample, position), so neither the batch nor its order changes it
    beyond the rounding of the model's arithmetic. `cpu_layers`: use the attention and linear layers for CPUs (default:
    on a CPU). `in_training`: layers that have a gradient stay as they are.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        chat: Chat,
        batch_size: int = 64,
        device: str = "auto",
        tokenizer: str = "the model's own",
        prefix_cache_gb: float = 2.0,
        cpu_layers: bool | None = None,
        in_training: bool = False,
    ):
        self.tokenizer = tokenizer
        self.model = model.to(find_device(device)).eval()  # type: ignore[arg-type]
        if model.device.type == "cpu" if cpu_layers is None else cpu_layers:
            model.set_attn_implementation(attention.NAME)
            prepack_linear(model, in_training)
        self.chat = chat
        self.batch_size = batch_size
        self.prefixes = PrefixCache(prefix_cache_gb * 1e9)
        self.max_model_len = max_model_len_of(model.config)
        self.stop_token_ids = chat.stop_token_ids(self.model.generation_config.eos_token_id)
        # The checkpoint's recommended decoding (Llama 3.1: temperature 0.6, top-p 0.9) must not apply.
        self.model.generation_config = GenerationConfig()

    def generate(self, more: RequestSource) -> CompletionStream:
        """Yield `(number, completion)`; of the waiting requests open turns start first, then the longest prompts.

        So an answer that is continued is still in the prefix cache, however many prompts are waiting. A request whose
        prompt and longest answer do not fit into the model's context fails.
        """
        waiting: list[Prompt] = []
        count, live = 0, None
        while True:
            room = self.batch_size - len(live or ())
            if not live or room >= self.batch_size * REFILL:
                if further := more():
                    new, refused = self._encoded(further, count)
                    yield from refused
                    waiting = sorted(waiting + new, key=lambda prompt: not prompt.request.continues)
                    count += len(further)
                begun, waiting = waiting[:room], waiting[room:]
                if begun:
                    live = LiveRows.concatenated([*([live] if live else ()), *map(self._begin, self._grouped(begun))])
            if not live:
                return
            self._advance(live)
            limit_freed_memory()
            done = list(map(self._completion, live.prompts, live.answers, live.logprobs))
            for row, completion in enumerate(done):
                if completion:
                    self._keep_answer(live, row, completion)
                    yield live.prompts[row].index, completion
            going_on = [row for row, completion in enumerate(done) if not completion]
            live = live.select(going_on) if going_on else None

    def _encoded(self, requests: Sequence[Request], count: int) -> tuple[list[Prompt], list[tuple[int, Completion]]]:
        """The requests' prompts, numbered from `count`, the longest first; and failed completions of those too long."""
        prompts: list[Prompt] = []
        refused: list[tuple[int, Completion]] = []
        for i, request in enumerate(requests, count):
            ids = tuple(self.chat.conversation_ids(request.messages))
            if why := too_long(len(ids), request.sampling.max_tokens, self.max_model_len):
                refused.append((i, Completion.failed(why)))
            else:
                prompts.append(Prompt(i, ids, request))
        prompts.sort(key=lambda prompt: -len(prompt.ids))
        return prompts, refused

    @torch.inference_mode()
    def _begin(self, prompts: list[Prompt]) -> LiveRows:
        """Prefill: rows of these prompts, with all but the last token in the cache; equal prompts are computed once."""
        unique = list(dict.fromkeys(prompt.ids for prompt in prompts))
        known = [self.prefixes.find(prompt) for prompt in unique]
        width = max(len(prompt) - len(prefix) for prompt, prefix in zip(unique, known, strict=True))
        used = [prefix.part(0, max(0, len(prompt) - width)) for prompt, prefix in zip(unique, known, strict=True)]
        rows = LiveRows.of(unique, used, self.model.device)
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
            if len(prompt) - len(prefix) > NEAR:
                self.prefixes.keep(prompt[:-1], partial(rows.columns, row, len(prompt) - 1))
        places = [unique.index(prompt.ids) for prompt in prompts]
        cached = [replace(prompt, cached=len(used[row])) for prompt, row in zip(prompts, places, strict=True)]
        return rows.repeat(places, cached)

    def _keep_answer(self, rows: LiveRows, row: int, completion: Completion) -> None:
        """Cache an answer's columns if it is to be continued."""
        prompt = rows.prompts[row]
        if prompt.request.continued:
            ids = (*prompt.ids, *(completion.ids or ()))
            end = min(len(ids), len(prompt.ids) + len(rows.answers[row]) - 1)  # the row's last id has no column yet
            self.prefixes.keep(ids[:end], partial(rows.columns, row, end))

    @torch.inference_mode()
    def _advance(self, rows: LiveRows) -> None:
        """Generate up to `CHUNK` tokens of every row, limited by what the rows still need and by the context length."""
        requests = [prompt.request for prompt in rows.prompts]
        wanted = max(r.sampling.max_tokens - len(answer) for r, answer in zip(requests, rows.answers, strict=True))
        longest = max(len(p.ids) + len(answer) for p, answer in zip(rows.prompts, rows.answers, strict=True))
        room = self.max_model_len - longest if self.max_model_len else wanted
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=min(CHUNK, wanted, room),
            eos_token_id=self.stop_token_ids,
            pad_token_id=self.stop_token_ids[0],
            return_dict_in_generate=True,
        )
        temperatures = [request.sampling.temperature for request in requests]
        steps: list[LogitsProcessor] = [SeededSampling(rows.generators, temperatures)] if any(temperatures) else []
        scores = ChosenLogprobs([r.sampling.temperature if r.processed_logprobs else 1.0 for r in requests], steps[:])
        if any(request.logprobs for request in requests):
            steps = [scores]
        output = self.model.generate(
            rows.ids_RW,
            attention_mask=rows.mask_RW,
            past_key_values=rows.cache,
            generation_config=config,
            logits_processor=LogitsProcessorList(steps),
            logits_to_keep=LAST,
        )
        rows.extend(output.sequences, scores.logprobs)

    def _completion(self, prompt: Prompt, generated: list[int], logprobs: list[float]) -> Completion | None:
        """The answer of a row; None while it has not ended."""
        answer = stopped_answer(prompt.request, generated, self.chat, self.stop_token_ids)
        if answer is None:
            return None
        count = len(answer.ids)
        scored = tuple(logprobs[:count]) if prompt.request.logprobs else None
        return Completion(
            answer.text,
            count,
            answer.finish,
            len(prompt.ids),
            prompt.cached,
            ids=answer.ids,
            logprobs=scored,
            stop_string=answer.stop_string,
        )

    def _grouped(self, prompts: Sequence[Prompt]) -> Iterator[list[Prompt]]:
        """Prompts in groups for one prefill each, the most ids to compute first; equal prompts are in one group.

        A group has at most `PREFILL` positions, and little padding of prompts with fewer ids to compute. Prompts with
        one, which needs no prefill, are groups of their own.
        """
        group: list[Prompt] = []
        most = padding = 0
        rests = {prompt.ids: len(prompt.ids) - self.prefixes.count(prompt.ids) for prompt in prompts}
        for prompt in sorted(prompts, key=lambda prompt: (-rests[prompt.ids], -len(prompt.ids), prompt.ids)):
            rest, size = rests[prompt.ids], len(group) + 1
            most = most or rest
            if group and prompt.ids != group[-1].ids:
                padding += most - rest
                if size * most > PREFILL or padding > max(PADDING, size * most // 8) or rest == 1 < most:
                    yield group
                    group, most, padding = [], rest, 0
            group.append(prompt)
        yield group


def find_device(name: str) -> torch.device:
    """The device of this name; for "auto" a GPU if there is one.

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
        raise UserError(f"engine.device={name}: {reason}; auto chooses one that exists") from error


class SeededSampling(LogitsProcessor):
    """Inverse transform sampling with each row's generator and temperature: the drawn token's score becomes infinite.

    A generator's numbers are drawn on the CPU, so that they are the same with every device. At temperature 0 the scores
    are unchanged.
    """

    def __init__(self, generators: Sequence[torch.Generator], temperatures: Sequence[float]):
        self.rows_R = torch.tensor([row for row, temperature in enumerate(temperatures) if temperature])
        self.generators = [generators[row] for row in self.rows_R]
        self.temperatures_R1 = torch.tensor([[temperature] for temperature in temperatures if temperature])

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        uniform_R1 = torch.stack([torch.rand(1, dtype=torch.float64, generator=of) for of in self.generators])
        on = scores.device if scores.is_cuda else torch.device("cpu")  # not every other device has float64
        at_once = len(self.rows_R) if scores.is_cuda else 1  # one row's numbers fit a CPU's cache
        of_rows = (self.rows_R, self.temperatures_R1, uniform_R1)
        parts = zip(*(of.to(on).split(at_once) for of in of_rows), strict=True)
        logits_RV = scores.to(on)
        drawn = [_draw(logits_RV[rows_R], T_R1, u_R1) for rows_R, T_R1, u_R1 in parts]
        chosen = (self.rows_R.to(scores.device), torch.cat(drawn).to(scores.device))
        return scores.index_put(chosen, scores.new_tensor(torch.inf))


class ChosenLogprobs(LogitsProcessor):
    """Applies other processors, and keeps each row's log-probability of the largest score: `logprobs`, [R] a step.

    A row's logits are divided by its temperature; at 0, greedy, they are taken as they are.
    """

    def __init__(self, temperatures: Sequence[float], processors: Sequence[LogitsProcessor]):
        self.temperatures_R1 = torch.tensor([temperature or 1.0 for temperature in temperatures])[:, None]
        self.processors = processors
        self.logprobs: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        plain_RV = scores
        for processor in self.processors:
            scores = processor(input_ids, scores)
        tempered_RV = plain_RV.float() / self.temperatures_R1.to(scores.device)
        chosen_R1 = tempered_RV.gather(1, scores.argmax(dim=-1, keepdim=True))
        self.logprobs.append(chosen_R1[:, 0] - tempered_RV.logsumexp(dim=-1))
        return scores


def _draw(logits_RV: torch.Tensor, temperature_R1: torch.Tensor, uniform_R1: torch.Tensor) -> torch.Tensor:
    """The first token of each row [R] whose cumulative probability reaches 1 − u, of a uniform u in [0, 1).

    1 − u is not 0, so that a token without probability is never drawn.
    """
    logits_RV = logits_RV.float()
    weights_RV = (logits_RV - logits_RV.amax(dim=-1, keepdim=True)).div_(temperature_R1).exp_()
    sums_RV = weights_RV.cumsum(dim=-1, dtype=torch.float64)
    drawn_R1 = torch.searchsorted(sums_RV, (1 - uniform_R1) * sums_RV[:, -1:])
    return drawn_R1[:, 0].clamp(max=logits_RV.shape[1] - 1)  # of logits that are not numbers, an id all the same
