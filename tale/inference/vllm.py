"""vLLM inside this program: continuous batching, prefix caching, adapters unmerged, copies on several devices."""

from __future__ import annotations

import asyncio
import atexit
import copy
import importlib.util
import os
from collections import deque
from collections.abc import Sequence
from contextlib import aclosing
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from transformers import AutoConfig, GenerationConfig

from tale.config.sections import VllmConfig
from tale.data.chat import Chat
from tale.errors import UserError
from tale.inference.ends import ended
from tale.inference.requests import Answers, Completion, More, Request
from tale.inference.room import too_long
from tale.models.adapters import PlainLora

if TYPE_CHECKING:
    from vllm import AsyncLLMEngine, SamplingParams

# Requests handed over for each that can run: a free place is filled at once, and the rest of a long list waits here.
AHEAD = 2
# Unless the environment says otherwise: errors only, nothing reported to vLLM's makers, and on a CPU every core (vLLM
# would leave one of them to its scheduler, half of a machine with two).
SETTINGS = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


class VllmEngine:
    """Answers of the plain model in `folder` (see `BaseModel.plain_folder`), `batch_size` at once on each copy of it.

    A sampled answer has its request's seed, so neither the batch nor its order changes it beyond the rounding of the
    model's own arithmetic. An adapter is rounded to the weights' `dtype`, as vLLM keeps it.

    Raises:
        UserError: vLLM is not installed, or does not start.
    """

    def __init__(
        self,
        folder: Path,
        chat: Chat,
        name: str,
        dtype: str,
        config: VllmConfig,
        batch_size: int,
        adapters: Sequence[Path] = (),
    ):
        self.tokenizer = name
        self.chat = chat
        self.stops = _stops(folder, chat)
        self.ahead = AHEAD * batch_size * config.data_parallel_size
        # In a list that `with_adapter` shares: once it is emptied the model is gone for all.
        self.running = [_start(folder, dtype, config, batch_size, adapters)]
        self.adapters = list(adapters)
        self.adapter: Path | None = None
        # It runs while an answer is awaited; the model's own processes go on in between.
        self.runner = asyncio.Runner()
        atexit.register(self.close)

    @property
    def llm(self) -> AsyncLLMEngine:
        """vLLM itself."""
        return self.running[0]

    def with_adapter(self, adapter: Path | None) -> VllmEngine:
        """The same model, answering with one of the adapters that it was started with, or without (None)."""
        assert adapter is None or adapter in self.adapters
        other = copy.copy(self)
        other.adapter = adapter
        return other

    def generate(self, more: More) -> Answers:
        """Yield `(number, completion)` as each is done; the calls in flight end when the caller stops.

        A prompt that does not fit into the model's context with the longest answer is refused.
        """
        loop, numbers = self.runner.get_loop(), count()
        waiting: deque[Request] = deque()
        running: set[asyncio.Task] = set()
        try:
            while True:
                if len(waiting) < self.ahead - len(running):
                    waiting += more()
                while waiting and len(running) < self.ahead:
                    running.add(loop.create_task(self._answer(next(numbers), waiting.popleft())))
                if not running:
                    return
                some = asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                done, running = loop.run_until_complete(some)
                yield from (task.result() for task in done)
        finally:
            if running:
                for task in running:
                    task.cancel()
                loop.run_until_complete(asyncio.wait(running))

    def close(self) -> None:
        """End vLLM's processes and give back their memory, here or at the program's end."""
        atexit.unregister(self.close)
        self.llm.shutdown()
        self.runner.close()
        self.running.clear()  # as the last thing of a program vLLM would complain that its modules are gone

    async def _answer(self, index: int, request: Request) -> tuple[int, Completion]:
        prompt = self.chat.conversation_ids(request.messages)
        if why := too_long(len(prompt), request.sampling.max_tokens, self.llm.model_config.max_model_len):
            return index, Completion.refused(why)
        from vllm.inputs import tokens_input
        from vllm.lora.request import LoRARequest

        number = self.adapters.index(self.adapter) + 1 if self.adapter else 0
        lora = LoRARequest(str(number), number, str(self.adapter)) if number else None
        outputs = self.llm.generate(tokens_input(prompt), self._params(request), str(index), lora_request=lora)
        async with aclosing(outputs):
            async for output in outputs:
                (answer,) = output.outputs
                if found := ended(request, answer.token_ids, self.chat, self.stops):
                    break  # at a stop string, which vLLM without a tokenizer does not know
        assert found  # by the limit, if by nothing else
        count, logprobs = len(found.ids), None
        if request.logprobs:
            chosen = zip(found.ids, answer.logprobs[:count], strict=True)
            logprobs = tuple(of[token].logprob for token, of in chosen)
        cached = output.num_cached_tokens or 0
        return index, Completion(found.text, count, found.finish, len(prompt), cached, ids=found.ids, logprobs=logprobs)

    def _params(self, request: Request) -> SamplingParams:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = request.sampling
        return SamplingParams(
            temperature=sampling.temperature,
            seed=request.draw_seed if sampling.temperature > 0 else None,
            max_tokens=sampling.max_tokens,
            stop_token_ids=self.stops,
            logprobs=0 if request.logprobs else None,
            detokenize=False,
            output_kind=RequestOutputKind.CUMULATIVE if request.stop else RequestOutputKind.FINAL_ONLY,
        )


def _start(folder: Path, dtype: str, config: VllmConfig, batch_size: int, adapters: Sequence[Path]) -> AsyncLLMEngine:
    """The asynchronous engine, the only one of vLLM's that runs several copies of a model from one program."""
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            "engine.kind=vllm: vLLM is not installed; pip install -e '.[vllm]' brings it for a GPU, `make vllm` makes "
            ".venv-vllm with its build for a CPU"
        )
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    from vllm import AsyncEngineArgs, AsyncLLMEngine
    from vllm.platforms import current_platform

    arguments = AsyncEngineArgs(
        model=str(folder),
        load_format="safetensors",
        dtype=dtype,
        skip_tokenizer_init=True,
        generation_config="vllm",  # the checkpoint's recommended decoding must not leak in
        max_model_len=-1,  # the model's own, or what the memory holds
        max_num_seqs=batch_size,
        enable_prefix_caching=True,
        tensor_parallel_size=config.tensor_parallel_size,
        data_parallel_size=config.data_parallel_size,
        gpu_memory_utilization=_memory(config),
        enforce_eager=current_platform.is_cpu(),  # there, compiling takes a minute and gains nothing
        use_tqdm_on_load=False,
        disable_log_stats=True,
        **_lora_arguments(adapters),
    )
    try:
        return AsyncLLMEngine.from_engine_args(arguments)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"engine.kind=vllm: vLLM did not start ({reason}); what it printed above says why. For want of memory, "
            "another engine.vllm.gpu_memory_utilization or a lower engine.batch_size"
        ) from error


def _lora_arguments(adapters: Sequence[Path]) -> dict[str, int | bool]:
    from vllm.config.lora import MaxLoRARanks

    if not adapters:
        return {}
    ranks = [PlainLora.read(adapter).r for adapter in adapters]
    room = min(rank for rank in get_args(MaxLoRARanks) if rank >= max(ranks))
    return {"enable_lora": True, "max_lora_rank": room, "max_loras": len(adapters)}


def _memory(config: VllmConfig) -> float:
    """The share that each copy takes. A CPU's memory is not vLLM's alone: together at most half of what is free."""
    import psutil
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return config.gpu_memory_utilization
    memory = psutil.virtual_memory()
    return min(config.gpu_memory_utilization, memory.available / memory.total / 2) / config.data_parallel_size


def _stops(folder: Path, chat: Chat) -> list[int]:
    """The template's end and the checkpoint's own ends, as transformers finds them on loading."""
    try:
        generation = GenerationConfig.from_pretrained(folder)
    except OSError:
        generation = GenerationConfig.from_model_config(AutoConfig.from_pretrained(folder))
    return chat.ends(generation.eos_token_id)
