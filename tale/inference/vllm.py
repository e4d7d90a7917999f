"""The vLLM engine, in process: continuous batching, prefix caching, unmerged adapters, copies on several devices."""

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
from tale.inference.context_length import too_long
from tale.inference.requests import Completion, CompletionStream, Request, RequestSource
from tale.inference.stopping import stopped_answer
from tale.models.adapters import PlainLora

if TYPE_CHECKING:
    from vllm import AsyncLLMEngine, SamplingParams

# Requests in vLLM's queue per running one, so that a free slot is filled at once; the others wait here.
AHEAD = 2
# Defaults, which the environment overrides: log errors only, send no usage statistics, and use every core of a CPU
# (vLLM would reserve one for its scheduler, half of a machine with two).
SETTINGS = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


class VllmEngine:
    """Completions of the model in `folder` (see `BaseModel.checkpoint_folder`), `batch_size` at once on each copy.

    A sampled answer has its request's seed, so neither the batch nor its order changes it beyond the rounding of the
    model's arithmetic. vLLM rounds an adapter to the weights' `dtype`. `processed_logprobs`: all log-probabilities are
    at the sampling temperature; else at temperature 1.

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
        processed_logprobs: bool = False,
    ):
        self.tokenizer = name
        self.processed_logprobs = processed_logprobs
        self.chat = chat
        self.stop_token_ids = _stops(folder, chat)
        self.ahead = AHEAD * batch_size * config.data_parallel_size
        # A list that all copies of `with_adapter` share: once it is empty, the model is closed for all.
        self.running = [_start(folder, dtype, config, batch_size, adapters, processed_logprobs)]
        self.adapters = list(adapters)
        self.adapter: Path | None = None
        # It runs while an answer is awaited; vLLM's own processes run all the time.
        self.runner = asyncio.Runner()
        atexit.register(self.close)

    @property
    def llm(self) -> AsyncLLMEngine:
        """vLLM's engine."""
        return self.running[0]

    def with_adapter(self, adapter: Path | None) -> VllmEngine:
        """The same engine with one of the adapters that it was started with, or without (None)."""
        assert adapter is None or adapter in self.adapters
        other = copy.copy(self)
        other.adapter = adapter
        return other

    def with_new_adapter(self, adapter: Path) -> VllmEngine:
        """The same engine with a further adapter of the same shape, under a number that vLLM has not seen."""
        self.adapters.append(adapter)
        return self.with_adapter(adapter)

    def generate(self, more: RequestSource) -> CompletionStream:
        """Yield `(number, completion)` as each is done; closing the generator cancels the calls in flight.

        Open turns start before prompts, so that an answer that is continued is still in vLLM's prefix cache. A request
        whose prompt and longest answer do not fit into the model's context fails.
        """
        loop, numbers = self.runner.get_loop(), count()
        waiting: deque[tuple[int, Request]] = deque()
        running: set[asyncio.Task] = set()
        try:
            while True:
                if len(running) < self.ahead:
                    for request in more():
                        (waiting.appendleft if request.continues else waiting.append)((next(numbers), request))
                while waiting and len(running) < self.ahead:
                    running.add(loop.create_task(self._answer(*waiting.popleft())))
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
        """End vLLM's processes and free their memory; called at exit, too."""
        atexit.unregister(self.close)
        self.llm.shutdown()
        self.runner.close()
        self.running.clear()  # collected at interpreter exit, vLLM would complain that its modules are gone

    async def _answer(self, index: int, request: Request) -> tuple[int, Completion]:
        assert not request.logprobs or request.processed_logprobs == self.processed_logprobs
        prompt = self.chat.conversation_ids(request.messages)
        if why := too_long(len(prompt), request.sampling.max_tokens, self.llm.model_config.max_model_len):
            return index, Completion.failed(why)
        from vllm.inputs import tokens_input
        from vllm.lora.request import LoRARequest

        number = self.adapters.index(self.adapter) + 1 if self.adapter else 0
        lora = LoRARequest(str(number), number, str(self.adapter)) if number else None
        outputs = self.llm.generate(tokens_input(prompt), self._params(request), str(index), lora_request=lora)
        async with aclosing(outputs):
            async for output in outputs:
                (answer,) = output.outputs
                if found := stopped_answer(request, answer.token_ids, self.chat, self.stop_token_ids):
                    break  # at a stop string, which vLLM cannot detect without a tokenizer
        assert found  # at the latest by the limit
        used = output.lora_request.lora_int_id if output.lora_request else 0
        if used != number:
            raise UserError(
                f"engine.kind=vllm: an answer is of adapter {used}, not of {number} ({self.adapter}): vLLM has not "
                "loaded it; use engine.kind=transformers"
            )
        count, logprobs = len(found.ids), None
        if request.logprobs:
            chosen = zip(found.ids, answer.logprobs[:count], strict=True)
            logprobs = tuple(of[token].logprob for token, of in chosen)
        return index, Completion(
            found.text,
            count,
            found.finish,
            len(prompt),
            output.num_cached_tokens or 0,
            ids=found.ids,
            logprobs=logprobs,
            stop_string=found.stop_string,
        )

    def _params(self, request: Request) -> SamplingParams:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = request.sampling
        return SamplingParams(
            temperature=sampling.temperature,
            seed=request.draw_seed if sampling.temperature > 0 else None,
            max_tokens=sampling.max_tokens,
            stop_token_ids=self.stop_token_ids,
            logprobs=0 if request.logprobs else None,
            detokenize=False,
            output_kind=RequestOutputKind.CUMULATIVE if request.stop else RequestOutputKind.FINAL_ONLY,
        )


def check_installed() -> None:
    """Find vLLM, without importing it.

    Raises:
        UserError: it is not installed.
    """
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            "engine.kind=vllm: vLLM is not installed; pip install -e '.[vllm]' installs it for a GPU, `make vllm` "
            "creates .venv-vllm with its build for a CPU"
        )


def _start(
    folder: Path, dtype: str, config: VllmConfig, batch_size: int, adapters: Sequence[Path], processed_logprobs: bool
) -> AsyncLLMEngine:
    """vLLM's asynchronous engine, the only one that runs several copies of a model from one program."""
    check_installed()
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    from vllm import AsyncEngineArgs, AsyncLLMEngine
    from vllm.platforms import current_platform

    arguments = AsyncEngineArgs(
        model=str(folder),
        load_format="safetensors",
        dtype=dtype,
        skip_tokenizer_init=True,
        generation_config="vllm",  # the checkpoint's recommended decoding must not apply
        max_model_len=-1,  # the model's own, or as much as fits into memory
        max_num_seqs=batch_size,
        enable_prefix_caching=True,
        tensor_parallel_size=config.tensor_parallel_size,
        data_parallel_size=config.data_parallel_size,
        gpu_memory_utilization=_memory(config),
        enforce_eager=current_platform.is_cpu(),  # on a CPU compiling takes a minute and gains nothing
        use_tqdm_on_load=False,
        disable_log_stats=True,
        logprobs_mode="processed_logprobs" if processed_logprobs else "raw_logprobs",
        **_lora_arguments(adapters),
    )
    try:
        return AsyncLLMEngine.from_engine_args(arguments)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"engine.kind=vllm: vLLM did not start ({reason}); see its output above. If memory is short, change "
            "engine.vllm.gpu_memory_utilization or lower engine.batch_size"
        ) from error


def _lora_arguments(adapters: Sequence[Path]) -> dict[str, int | bool]:
    from vllm.config.lora import MaxLoRARanks

    if not adapters:
        return {}
    ranks = [PlainLora.read(adapter).r for adapter in adapters]
    room = min(rank for rank in get_args(MaxLoRARanks) if rank >= max(ranks))
    return {"enable_lora": True, "max_lora_rank": room, "max_loras": len(adapters)}


def _memory(config: VllmConfig) -> float:
    """The memory share of each copy. On a CPU, whose memory is shared, all copies take at most half of what is free."""
    import psutil
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return config.gpu_memory_utilization
    memory = psutil.virtual_memory()
    return min(config.gpu_memory_utilization, memory.available / memory.total / 2) / config.data_parallel_size


def _stops(folder: Path, chat: Chat) -> list[int]:
    """The template's end token and the checkpoint's, as transformers finds them on loading."""
    try:
        generation = GenerationConfig.from_pretrained(folder)
    except OSError:
        generation = GenerationConfig.from_model_config(AutoConfig.from_pretrained(folder))
    return chat.stop_token_ids(generation.eos_token_id)
