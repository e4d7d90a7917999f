"""Batched generation against one prompt at a time, by hand; sampling against the softmax it is drawn from."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
from scipy import special, stats
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tale.config.sections import Dtype, EngineConfig, ModelConfig, Template
from tale.data.chat import Chat
from tale.errors import UserError
from tale.inference import Completion, Message, Request, Sampling
from tale.inference.build import engines
from tale.inference.journal import JournaledEngine
from tale.inference.requests import CompletionStream, request_source
from tale.inference.scheduler import Solver, solve
from tale.inference.transformers.attention import NAME, grouped_sdpa
from tale.inference.transformers.engine import SeededSampling, TransformersEngine, _draw
from tale.inference.transformers.linear import prepack_linear
from tale.inference.transformers.prefix_cache import Prefix, PrefixCache
from tale.models.adapters import AdapterCard
from tale.models.base import resolve
from tale.models.lora import load_adapter, save_adapter
from tests.factories import END_ID, Ids, adapted
from tests.fake_engine import ask, generate

TEXTS = ["2 + 2?", "", "Tom has 3 pens, Ann has 4.", "三加四等于几？", "A", "How many legs do 6 spiders have? " * 3]
REQUESTS = [ask(text) for text in TEXTS]
GREEDY = Sampling(max_tokens=12)


@pytest.fixture(scope="module")
def chat(tiny_tokenizer: PreTrainedTokenizerFast) -> Chat:
    return Ids(tiny_tokenizer)


def fresh(folder: Path, attention: str = "eager") -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention).eval()


@pytest.fixture
def engine(tiny_model_folder: Path, chat: Chat) -> TransformersEngine:
    return TransformersEngine(fresh(tiny_model_folder), chat, batch_size=4, device="cpu")


def generated(
    engine: TransformersEngine, sampling: Sampling = GREEDY, requests: list[Request] = REQUESTS
) -> list[Completion]:
    done = in_order(generate(engine, requests, sampling))
    assert len(done) == len(requests)
    return done


def in_order(stream: CompletionStream) -> list[Completion]:
    """Completions by number, without what the cache saved."""
    return [replace(completion, cached_tokens=0) for _, completion in sorted(stream)]


@torch.no_grad()
def greedy_by_hand(model: PreTrainedModel, prompt: list[int], tokens: int, stops: set[int]) -> list[int]:
    """The likeliest token again and again; the whole text goes through the model each time."""
    ids = list(prompt)
    while len(ids) < len(prompt) + tokens and not (len(ids) > len(prompt) and ids[-1] in stops):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


# --- Greedy ---------------------------------------------------------------------------------------------------------


def test_a_batch_gives_each_prompt_its_tokens_as_alone(
    engine: TransformersEngine, tiny_model_folder: Path, chat: Chat
) -> None:
    plain = fresh(tiny_model_folder)
    expected = [greedy_by_hand(plain, chat.prompt_ids(text), 12, {END_ID}) for text in TEXTS]
    assert len({tuple(ids) for ids in expected}) == len(TEXTS)  # the context matters, or this test says little
    assert [(c.text, c.ids) for c in generated(engine)] == [(chat.decode(ids), tuple(ids)) for ids in expected]


def test_a_batch_gives_what_transformers_generates_alone(
    engine: TransformersEngine, tiny_model_folder: Path, chat: Chat
) -> None:
    plain = fresh(tiny_model_folder, "sdpa")
    for text, completion in zip(TEXTS, generated(engine), strict=True):
        ids = torch.tensor([chat.prompt_ids(text)])
        output = plain.generate(ids, do_sample=False, max_new_tokens=12, eos_token_id=END_ID, pad_token_id=0)
        assert completion.text == chat.decode(output[0, ids.shape[1] :].tolist())
        assert completion.prompt_tokens == ids.shape[1]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batch_size_and_order_change_nothing(batch_size: int, tiny_model_folder: Path, chat: Chat) -> None:
    expected = generated(TransformersEngine(fresh(tiny_model_folder), chat, batch_size=4))
    other = TransformersEngine(fresh(tiny_model_folder), chat, batch_size)
    assert generated(other) == expected
    assert generated(other, requests=REQUESTS[::-1]) == expected[::-1]


def test_the_longest_prompts_come_first(engine: TransformersEngine, chat: Chat) -> None:
    """So that a batch that does not fit into memory fails at once."""
    lengths = [len(chat.prompt_ids(TEXTS[i])) for i, _ in generate(engine, REQUESTS, Sampling(1))]
    assert lengths == sorted(lengths, reverse=True)


def test_no_requests_give_nothing(engine: TransformersEngine) -> None:
    assert list(generate(engine, [], GREEDY)) == []


@pytest.mark.parametrize("where", ["the template's end", "the checkpoint's generation config"])
def test_an_end_token_stops_and_is_counted(where: str, tiny_model_folder: Path, tiny_tokenizer) -> None:
    """The random model never says its own end, so a token that it says is made one."""
    chat = Ids(tiny_tokenizer)
    model = fresh(tiny_model_folder)
    free = [greedy_by_hand(model, chat.prompt_ids(text), 12, set()) for text in TEXTS]
    end = free[0][4]
    if where == "the template's end":
        chat.end_id = end
    else:
        model.generation_config.eos_token_id = [END_ID, end]
    completions = generated(TransformersEngine(model, chat))
    for ids, completion in zip(free, completions, strict=True):
        kept = ids[: ids.index(end) + 1] if end in ids else ids
        assert completion.text == chat.decode(kept)
        assert (completion.tokens, completion.finish) == (len(kept), "stop" if end in ids else "length")
        assert completion.truncated is (end not in ids)
    assert {c.finish for c in completions} == {"stop", "length"}


@pytest.mark.parametrize("chunk", [1, 3, 5, 16, 64])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_ended_rows_leave_the_batch_and_change_no_other(
    temperature: float, chunk: int, tiny_model_folder: Path, tiny_tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tale.inference.transformers.engine.CHUNK", chunk)
    sampling = Sampling(30, temperature, seed=3)
    model, chat = fresh(tiny_model_folder), Ids(tiny_tokenizer)
    free = [[int(i) for i in c.text.split()] for c in generated(TransformersEngine(model, chat), sampling)]
    ends = {free[0][1], free[1][5], free[2][11], free[3][14], END_ID}
    engine = TransformersEngine(model, chat)
    engine.stop_token_ids = sorted(ends)
    expected = [ids[: next((i + 1 for i, token in enumerate(ids) if token in ends), 30)] for ids in free]
    assert len({len(ids) for ids in expected}) > 3

    rows = []
    whole = model.generate
    monkeypatch.setattr(model, "generate", lambda ids, **given: rows.append(len(ids)) or whole(ids, **given))
    assert [c.text for c in generated(engine, sampling)] == [chat.decode(ids) for ids in expected]
    steps = range(0, max(map(len, expected)), chunk)
    assert rows == [sum(len(ids) > step for ids in expected) for step in steps]


def test_no_row_outgrows_the_context_while_another_continues(chat: Chat) -> None:
    """Learned positions end with it. The second row ends after 3 tokens, the third takes its place."""
    requests = [ask(text) for text in ("one", "two", "six")]
    (room,) = {len(chat.prompt_ids(request.prompt)) + 10 for request in requests}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(
            GPT2Config(vocab_size=258, n_positions=room, n_embd=32, n_layer=2, n_head=2, initializer_range=0.5)
        )
    sampling = Sampling(10, temperature=1.0)
    free = [c.ids for c in generated(TransformersEngine(model, chat), sampling, requests)]
    engine = TransformersEngine(model, chat, batch_size=2)
    engine.stop_token_ids = [next(token for token in free[1][2:] if token not in {*free[0], *free[2]})]
    first, second, third = generated(engine, sampling, requests)
    assert (first.ids, third.ids) == (free[0], free[2])
    assert second.ids == free[1][: second.tokens]
    assert second.tokens < 10


def test_an_end_as_the_last_allowed_token_is_no_cut_off(tiny_model_folder: Path, tiny_tokenizer) -> None:
    chat = Ids(tiny_tokenizer)
    model = fresh(tiny_model_folder)
    first, second = greedy_by_hand(model, chat.prompt_ids("A"), 2, set())
    assert first != second
    chat.end_id = second
    (completion,) = generated(TransformersEngine(model, chat), Sampling(2), [ask("A")])
    assert (completion.tokens, completion.finish) == (2, "stop")


def test_the_checkpoints_recommended_decoding_does_not_leak_in(tiny_model_folder: Path, chat: Chat) -> None:
    """Llama 3.1's says temperature 0.6, top-p 0.9; the official code gave its baselines a repetition penalty of 1.2."""
    expected = generated(TransformersEngine(fresh(tiny_model_folder), chat))
    model = fresh(tiny_model_folder)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=5.0, top_p=0.9, repetition_penalty=3.0, no_repeat_ngram_size=1,
        max_new_tokens=5, suppress_tokens=list(range(100)), eos_token_id=END_ID,
    )  # fmt: skip
    ids = torch.tensor([chat.prompt_ids(TEXTS[0])])
    leaked = model.generate(ids, pad_token_id=0)[0, ids.shape[1] :].tolist()
    assert not expected[0].text.startswith(chat.decode(leaked))  # by itself, transformers does obey it
    assert generated(TransformersEngine(model, chat)) == expected


def test_a_prompt_without_room_is_refused_and_others_answered(engine: TransformersEngine, chat: Chat) -> None:
    """The tiny model has 1024 positions, and the last text is the longest alone."""
    room = 1024 - len(chat.prompt_ids(TEXTS[-1]))
    engine.stop_token_ids = list(range(258))
    *others, last = generated(engine, Sampling(room + 1))
    assert (last.finish, last.tokens) == ("error", 0)
    assert last.error == ("too long: prompt and answer may need 1025 tokens, the model has 1024")
    assert others == generated(engine, Sampling(room))[:-1]
    assert generated(engine, Sampling(room))[-1].tokens == 1


def test_the_text_has_no_end(tiny_model_folder: Path, tiny_tokenizer) -> None:
    chat = Chat(tiny_tokenizer)
    assert chat.decode([*b"Answer: 7", END_ID]) == "Answer: 7"
    (completion,) = generated(TransformersEngine(fresh(tiny_model_folder), chat), GREEDY, [ask("A")])
    ids = greedy_by_hand(fresh(tiny_model_folder), chat.prompt_ids("A"), 12, {END_ID})
    assert completion.text == bytes(i for i in ids if i < 256).decode(errors="replace")


def test_an_adapter_answers_as_its_merged_model_does(
    tiny_model_folder: Path, chat: Chat, tmp_path: Path, engine: TransformersEngine
) -> None:
    save_adapter(adapted(tiny_model_folder), AdapterCard({}, [], []), tmp_path / "adapter")
    base = resolve(ModelConfig(str(tiny_model_folder), dtype=Dtype.float32))
    on_top = TransformersEngine(load_adapter(fresh(tiny_model_folder), tmp_path / "adapter"), chat)
    merged = TransformersEngine(base.merged(tmp_path / "adapter"), chat)
    assert generated(on_top) != generated(engine)
    assert generated(on_top) == generated(merged)


# --- Sampling -------------------------------------------------------------------------------------------------------

RANDOM = Sampling(max_tokens=12, temperature=1.0, seed=5)


def test_samples_are_the_same_each_time_in_any_batch_and_order(tiny_model_folder: Path, chat: Chat) -> None:
    requests = [ask(text, sample) for text in TEXTS for sample in range(3)]
    together = generated(TransformersEngine(fresh(tiny_model_folder), chat, batch_size=18), RANDOM, requests)
    pairs = TransformersEngine(fresh(tiny_model_folder), chat, batch_size=2)
    assert generated(pairs, RANDOM, requests) == together
    assert generated(pairs, RANDOM, requests[::-1]) == together[::-1]
    assert generated(pairs, RANDOM, [requests[7]]) == [together[7]]
    assert len({c.text for c in together}) == len(requests)


def test_another_seed_draws_others_and_greedy_has_no_seed(engine: TransformersEngine) -> None:
    other = Sampling(max_tokens=12, temperature=1.0, seed=6)
    assert all(a.text != b.text for a, b in zip(generated(engine, RANDOM), generated(engine, other), strict=True))
    assert generated(engine, Sampling(12, seed=1)) == generated(engine, Sampling(12, seed=2))


def test_a_temperature_near_zero_is_greedy(engine: TransformersEngine) -> None:
    assert generated(engine, Sampling(max_tokens=12, temperature=1e-4)) == generated(engine)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_a_sampled_token_follows_the_softmax_at_its_temperature(
    temperature: float, tiny_model_folder: Path, chat: Chat
) -> None:
    """χ² over 3,000 first tokens of one prompt; tokens expected fewer than 8 times are one bin."""
    draws = 3000
    engine = TransformersEngine(fresh(tiny_model_folder), chat, batch_size=1000)
    requests = [ask("A", sample) for sample in range(draws)]
    counts = Counter(int(c.text) for c in generated(engine, Sampling(1, temperature, seed=1), requests))
    with torch.no_grad():
        logits = fresh(tiny_model_folder)(torch.tensor([chat.prompt_ids("A")])).logits[0, -1].double()

    def p_value(at: float) -> float:
        expected = draws * (logits / at).softmax(-1)
        frequent = [i for i in range(len(expected)) if expected[i] >= 8]
        rare = sum(float(expected[i]) for i in range(len(expected)) if i not in frequent)
        seen = [counts[i] for i in frequent] + [draws - sum(counts[i] for i in frequent)]
        assert len(frequent) > 5
        return stats.chisquare(seen, [*(float(expected[i]) for i in frequent), rare]).pvalue

    assert p_value(temperature) > 0.01
    assert p_value(1.3 * temperature) < 1e-6  # the test would notice


def test_a_drawn_token_is_numpys_of_the_same_uniform_number() -> None:
    logits = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0))
    temperatures = [0.5, 0.0, 2.0]
    draw = SeededSampling([torch.Generator().manual_seed(seed) for seed in range(3)], temperatures)
    for row in (0, 2):
        uniform = torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(row)).numpy()
        sums = numpy.cumsum(special.softmax(logits[row].double().numpy() / temperatures[row]))
        expected = [int(numpy.argmax(sums >= 1 - u)) for u in uniform]
        again = SeededSampling([torch.Generator().manual_seed(row)], [temperatures[row]])
        assert [int(again(torch.empty(0), logits[[row]]).argmax()) for _ in uniform] == expected
        assert len(set(expected)) >= 10
    drawn = draw(torch.empty(0), logits)
    assert drawn[1].equal(logits[1])
    assert [int(row.isinf().sum()) for row in drawn] == [1, 0, 1]


@pytest.mark.parametrize(
    "logits",
    [[0.0, -math.inf, 3.0, -math.inf], [math.nan] * 4, [1e30, 0.0, -1e30, 1e30]],
    ids=["masked", "NaN", "huge"],
)
def test_a_draw_has_probability_at_any_uniform_number(logits: list[float]) -> None:
    uniform = torch.tensor([[0.0], [0.3], [1 - 2**-53]], dtype=torch.float64)
    rows, temperatures = torch.tensor([logits] * 3), torch.tensor([[1e-30]] * 3)
    drawn = _draw(rows, temperatures, uniform).tolist()
    assert drawn == [int(_draw(rows[[i]], temperatures[[i]], uniform[[i]])) for i in range(3)]
    assert all(0 <= token < 4 and logits[token] != -math.inf for token in drawn)


# --- Attention ------------------------------------------------------------------------------------------------------


def attention_by_hand(query, key, value, mask, scaling):
    """Softmax attention with the shared heads copied, each row over what its mask allows."""
    groups = query.shape[1] // key.shape[1]
    key, value = (shared.repeat_interleave(groups, dim=1) for shared in (key, value))
    scores = (query @ key.transpose(2, 3) * scaling).masked_fill(~mask, -torch.inf)
    return (scores.softmax(dim=-1) @ value).transpose(1, 2)


@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize(
    ("length", "past", "padded"), [(5, 0, False), (5, 0, True), (1, 6, False), (1, 6, True), (3, 4, True)]
)
def test_grouped_attention_is_attention_over_copied_heads(key_heads: int, length: int, past: int, padded: bool) -> None:
    torch.manual_seed(0)
    total = past + length
    query = torch.randn(2, 4, length, 8)
    key, value = torch.randn(2, key_heads, total, 8), torch.randn(2, key_heads, total, 8)
    mask = torch.ones(length, total, dtype=torch.bool).tril(past).expand(2, 1, length, total).clone()
    if padded:
        mask[1, :, :, 0] = False
        mask[1, :, 0, 0] = past == 0  # the padding's own row attends to something
    given = mask if padded else None
    result, weights = grouped_sdpa(torch.nn.Module(), query, key, value, given, scaling=0.3)
    assert weights is None
    torch.testing.assert_close(result, attention_by_hand(query, key, value, mask, 0.3), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("padded", [False, True])
@torch.no_grad()
def test_grouped_attention_gives_a_model_the_logits_of_sdpa(padded: bool, tiny_model_folder: Path, chat: Chat) -> None:
    """Prefill, then two decoded tokens through the cache; padded on the left as the engine does."""
    rows = [chat.prompt_ids(text) for text in (TEXTS[2], TEXTS[0] if padded else TEXTS[2][::-1])]
    width = max(map(len, rows))
    ids = torch.tensor([[END_ID] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    logits = {}
    for name in ("sdpa", NAME):
        model, cache, steps = fresh(tiny_model_folder, name), None, []
        for step, fed in enumerate((ids, ids[:, -1:], ids[:, -2:-1])):
            attended = torch.cat([mask, torch.ones(2, step, dtype=torch.long)], dim=1)
            positions = (attended.cumsum(1) - 1).clamp(min=0)[:, -fed.shape[1] :]
            output = model(fed, attention_mask=attended, position_ids=positions, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            steps.append(output.logits if step else output.logits * mask[:, :, None])
        logits[name] = torch.cat(steps, dim=1)
    assert torch.isfinite(logits[NAME]).all()
    torch.testing.assert_close(logits[NAME], logits["sdpa"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (3, 7), (600, 1), (0, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_reordered_linear_layer_gives_what_it_gave(shape: tuple[int, int], bias: bool, dtype: torch.dtype) -> None:
    layer = torch.nn.Linear(24, 40, bias=bias, dtype=dtype)
    given = torch.randn(*shape, 24, dtype=dtype)
    expected = given.double() @ layer.weight.double().T + (layer.bias.double() if bias else 0)
    prepack_linear(layer)
    assert layer.weight.is_mkldnn or dtype is torch.bfloat16  # which not every processor has
    torch.testing.assert_close(layer(given), expected.to(dtype))


def test_a_tied_head_is_reordered_and_the_embeddings_are_not() -> None:
    embeddings, head = torch.nn.Embedding(40, 24), torch.nn.Linear(24, 40, bias=False)
    head.weight = embeddings.weight
    prepack_linear(torch.nn.ModuleList([embeddings, head]))
    assert embeddings.weight.layout is torch.strided
    torch.testing.assert_close(head(embeddings(torch.tensor([3]))), embeddings.weight[3:4] @ embeddings.weight.T)


def test_the_engine_uses_grouped_attention_on_a_cpu(engine: TransformersEngine) -> None:
    assert engine.model.config._attn_implementation == NAME
    assert engine.model.get_decoder().layers[0].mlp.up_proj.weight.is_mkldnn  # and prepacked layers


# --- Requests that come while others are answered -------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("journaled", [False, True])
def test_later_requests_are_answered_as_if_there_from_the_start(
    temperature: float, journaled: bool, tiny_model_folder: Path, chat: Chat, tmp_path: Path
) -> None:
    """Two at first, and another one whenever the engine has room, as long as there are any."""
    sampling = Sampling(20, temperature, seed=2)
    expected = generated(TransformersEngine(fresh(tiny_model_folder), chat), sampling)
    engine = TransformersEngine(fresh(tiny_model_folder), chat, batch_size=2)
    first, *later = [[replace(r, sampling=sampling) for r in of] for of in (REQUESTS[:2], *([r] for r in REQUESTS[2:]))]
    if journaled:  # two of them known
        engine = JournaledEngine(engine, tmp_path / "journal.jsonl", {})
        assert generated(engine, sampling, REQUESTS[1:3]) == expected[1:3]
    assert in_order(engine.generate(request_source(first, lambda: later.pop(0) if later else []))) == expected
    assert later == []


# --- Prompts that begin alike ---------------------------------------------------------------------------------------

COLUMN = 2 * 2 * 2 * 8 * 4  # bytes: keys and values of 2 layers with 2 heads of 8 floats
STORY = "How many legs do 6 spiders have, and how many do 7 beetles have? "
ALIKE = [
    STORY + end for end in ("", "Think.", "Think, and use less than 50 words.", "Think, and use less than 9 words.")
]


@pytest.fixture
def columns(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many columns each forward pass computes, of all its rows."""
    seen: list[int] = []
    forward = LlamaForCausalLM.forward

    @functools.wraps(forward)
    def counted(self: LlamaForCausalLM, input_ids: torch.Tensor, **given: object) -> object:
        seen.append(input_ids.numel())
        return forward(self, input_ids, **given)

    monkeypatch.setattr(LlamaForCausalLM, "forward", counted)
    return seen


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_known_prefixes_change_no_answer(
    temperature: float, batch_size: int, tiny_model_folder: Path, chat: Chat
) -> None:
    sampling = Sampling(12, temperature, seed=5)
    requests = [ask(text, sample) for text in (*ALIKE, *TEXTS) for sample in (0, 1)]
    plain = TransformersEngine(fresh(tiny_model_folder), chat, batch_size, prefix_cache_gb=0)
    expected = generated(plain, sampling, requests)
    engine = TransformersEngine(fresh(tiny_model_folder), chat, batch_size)
    assert generated(engine, sampling, requests) == expected
    assert generated(engine, sampling, requests[::-1]) == expected[::-1]
    assert engine.prefixes.bytes
    assert not plain.prefixes.bytes


def test_a_shared_prefix_is_not_computed_again(tiny_model_folder: Path, chat: Chat, columns: list[int]) -> None:
    """A prompt that begins like an earlier one is computed from where they differ."""
    engine = TransformersEngine(fresh(tiny_model_folder), chat)
    generated(engine, Sampling(1), [ask(ALIKE[2])])
    first, other = (chat.prompt_ids(text) for text in ALIKE[2:])
    same = next(i for i, (a, b) in enumerate(zip(first, other, strict=False)) if a != b)
    assert columns == [len(first) - 1, 1]
    generated(engine, Sampling(1), [ask(ALIKE[3])])
    assert columns[2:] == [len(other) - same - 1, 1]
    generated(engine, Sampling(1), [ask(ALIKE[2])])
    assert columns[4:] == [1]


def test_samples_of_a_prompt_are_computed_once(tiny_model_folder: Path, chat: Chat, columns: list[int]) -> None:
    engine = TransformersEngine(fresh(tiny_model_folder), chat, prefix_cache_gb=0)
    generated(engine, Sampling(1, temperature=1.0), [ask(STORY, sample) for sample in range(5)])
    assert columns == [len(chat.prompt_ids(STORY)) - 1, 5]


def test_without_room_the_oldest_prefix_is_dropped_first(tiny_model_folder: Path, chat: Chat) -> None:
    engine = TransformersEngine(fresh(tiny_model_folder), chat, batch_size=1)
    texts = [f"{i}{i}{i}: {STORY}" for i in range(4)]
    generated(engine, Sampling(1), [ask(texts[0])])
    engine.prefixes.capacity = 2.5 * engine.prefixes.bytes
    for text in (*texts[1:3], texts[1], texts[3]):
        generated(engine, Sampling(1), [ask(text)])
    known = [engine.prefixes.count(chat.prompt_ids(text)) for text in texts]
    alike, whole = len([256, *b"user\n"]), len(chat.prompt_ids(texts[0])) - 1
    assert known == [alike, whole, alike, whole]
    assert engine.prefixes.bytes == (alike + 2 * (whole - alike)) * COLUMN


def test_a_cached_sequence_is_split_where_another_leaves_it() -> None:
    """Columns by hand: each is its own id, at its place."""
    cache = PrefixCache(4 * (12 + 2))
    columns = lambda ids: lambda known: Prefix(*[(torch.tensor(ids[known:]).float()[None, :, None],)] * 2)  # noqa: E731
    held = lambda ids: cache.find(ids).keys_HWD[0].flatten().tolist() if len(cache.find(ids)) else []  # noqa: E731
    for ids in ((1, 2, 3, 4), (1, 2, 3), (1, 2, 5), (1, 2, 3, 4, 6)):
        cache.keep(ids, columns(ids))
    assert cache.bytes == 2 * 4 * len("123456")
    assert held((1, 2, 3, 4, 6, 7)) == [1, 2, 3, 4, 6]
    assert held((1, 2, 3, 4, 6)) == [1, 2, 3, 4]  # the last id is computed
    assert held((1, 2, 5, 8)) == [1, 2, 5]
    assert held((2, 1)) == held((1,)) == []
    cache.keep((9, 9), columns((9, 9)))  # 8 of 7 columns: 6 is the end of what was used longest ago
    assert held((1, 2, 3, 4, 6, 7)) == [1, 2, 3, 4]
    assert held((1, 2, 5, 8)) == [1, 2, 5]
    assert held((9, 9, 1)) == [9, 9]


@pytest.mark.parametrize("positions", [1, 100, 300])
def test_prompts_computed_a_few_at_a_time_change_no_answer(
    positions: int, tiny_model_folder: Path, chat: Chat, columns: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [ask(text, sample) for text in (*ALIKE, *TEXTS) for sample in (0, 1)]
    sampling = Sampling(12, temperature=1.0, seed=5)
    expected = generated(TransformersEngine(fresh(tiny_model_folder), chat), sampling, requests)
    monkeypatch.setattr("tale.inference.transformers.engine.PREFILL", positions)
    columns.clear()
    assert generated(TransformersEngine(fresh(tiny_model_folder), chat), sampling, requests) == expected
    longest = max(len(chat.prompt_ids(request.prompt)) for request in requests)
    begun = columns[: -sampling.max_tokens]
    assert max(begun) <= max(positions, longest)
    assert len(begun) > 1


# --- Building -------------------------------------------------------------------------------------------------------


def test_an_engine_refuses_another_models_journal(tiny_model_folder: Path, tmp_path: Path) -> None:
    """Of another dtype, template or adapter."""
    (tmp_path / "run").mkdir()
    save_adapter(adapted(tiny_model_folder), AdapterCard({}, [], []), tmp_path / "adapter")

    def build(adapter: Path | None = None, **changed: object) -> list[Completion]:
        base = resolve(ModelConfig(str(tiny_model_folder), **{"dtype": Dtype.bfloat16} | changed))
        (built,) = engines(EngineConfig(batch_size=2, device="cpu"), base, tmp_path / "run", [adapter])
        return generated(built, Sampling(3), REQUESTS[:2])

    plain = build()
    assert build() == plain
    assert build(tmp_path / "adapter") != plain
    assert len(list((tmp_path / "run").glob("journal*.jsonl"))) == 2
    for changed in ({"dtype": Dtype.float32}, {"template": Template.plain}, {"name": "other"}):
        with pytest.raises(UserError, match="use another output folder"):
            build(**changed)


@pytest.mark.parametrize("device", ["cpux", "cuda:77"])
def test_a_device_that_is_not_there_is_refused_by_name(device: str, tiny_model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^engine.device={device}: .*; auto chooses one that exists$"):
        next(engines(EngineConfig(device=device), resolve(ModelConfig(str(tiny_model_folder))), tmp_path))


# --- Each request by its own limits ---------------------------------------------------------------------------------


def test_other_limits_temperatures_and_seeds_share_a_batch(tiny_model_folder: Path, chat: Chat) -> None:
    """Each answer is the one that its request gets in a batch of its own kind."""
    samplings = [Sampling(12), Sampling(5), Sampling(20, 1.0, seed=3), Sampling(3, 0.5), Sampling(20, 1.0, seed=4)]
    requests = [ask(text, sampling=sampling) for text in TEXTS for sampling in samplings]
    engine = TransformersEngine(fresh(tiny_model_folder), chat, batch_size=7)
    together = in_order(generate(engine, requests))
    for i, sampling in enumerate(samplings):
        alone = generated(TransformersEngine(fresh(tiny_model_folder), chat), sampling)
        assert together[i :: len(samplings)] == alone
        assert {completion.tokens for completion in alone} <= {*range(1, sampling.max_tokens + 1)}


def test_an_answer_ends_before_its_first_stop_string(tiny_model_folder: Path, chat: Chat) -> None:
    """The tokens that wrote it are paid, the text is what came before it."""
    (free,) = generated(TransformersEngine(fresh(tiny_model_folder), chat), Sampling(40), [ask("A")])
    texts = [chat.decode(free.ids[:i]) for i in range(1, 41)]
    stop = texts[20][len(texts[17]) :]  # three characters and more, from the 19th token on
    place = free.text.index(stop)
    count = next(i for i, text in enumerate(texts, 1) if stop in text)
    request = replace(ask("A", sampling=Sampling(40)), stop=("never written", stop))
    (stopped,) = generate(TransformersEngine(fresh(tiny_model_folder), chat), [request])
    assert stopped[1] == Completion(
        free.text[:place], count, "stop", free.prompt_tokens, ids=tuple(free.ids[:count]), stop_string=stop
    )


def test_a_stop_string_that_is_not_written_changes_nothing(tiny_model_folder: Path, chat: Chat) -> None:
    requests = [replace(request, stop=("never written",)) for request in REQUESTS]
    engine = TransformersEngine(fresh(tiny_model_folder), chat)
    assert generated(engine, requests=requests) == generated(engine)


@torch.no_grad()
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_log_probabilities_are_the_models_own(temperature: float, tiny_model_folder: Path, chat: Chat) -> None:
    """By one forward pass over prompt and answer, whatever the temperature; only where they are asked for."""
    sampling = Sampling(12, temperature)
    requests = [replace(ask(text, sampling=sampling), logprobs=i != 1) for i, text in enumerate(TEXTS)]
    model = fresh(tiny_model_folder)
    completions = dict(generate(TransformersEngine(fresh(tiny_model_folder), chat, batch_size=4), requests))
    assert completions[1].logprobs is None
    for i in {*range(len(TEXTS))} - {1}:
        prompt, ids = chat.prompt_ids(TEXTS[i]), list(completions[i].ids)
        scores = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        assert completions[i].logprobs == pytest.approx(
            scores.gather(1, torch.tensor(ids)[:, None])[:, 0].tolist(), abs=1e-4
        )
    assert [c.ids for _, c in sorted(completions.items())] == [
        c.ids for c in generated(TransformersEngine(fresh(tiny_model_folder), chat), sampling)
    ]


def test_an_open_turn_is_continued_as_it_would_have_been(tiny_model_folder: Path, tiny_tokenizer) -> None:
    """Of answers whose first ids are text, by which they are found again; this random model writes others, too."""
    chat = Chat(tiny_tokenizer)
    engine = TransformersEngine(fresh(tiny_model_folder), chat)
    turns = [(Message("system", "Count."), Message("user", chr(65 + i % 26) * (1 + i // 26))) for i in range(200)]
    whole = [c for _, c in sorted(generate(engine, [Request(of, Sampling(9)) for of in turns]))]
    opened = [(*of, Message("assistant", chat.decode(c.ids[:2]))) for of, c in zip(turns, whole, strict=True)]
    same = [i for i, of in enumerate(opened) if chat.conversation_ids(of)[-2:] == [*whole[i].ids[:2]]]
    assert len(same) > 5
    rest = [c for _, c in sorted(generate(engine, [Request(opened[i], Sampling(7)) for i in same]))]
    assert [c.ids for c in rest] == [whole[i].ids[2:] for i in same]
    assert [c.prompt_tokens for c in rest] == [whole[i].prompt_tokens + 2 for i in same]


# --- Answers that are continued -------------------------------------------------------------------------------------


def continued(request: Request, completion: Completion, text: str | None = None) -> Request:
    """The request that continues this answer, after a text if there is one."""
    parts = [Message("assistant", completion.text, completion.ids), *([Message("assistant", text)] if text else [])]
    return replace(request, messages=(*request.messages, *parts))


def in_steps(engine: TransformersEngine, requests: list[Request], tokens: int, step: int) -> list[tuple[int, ...]]:
    """Ids of greedy answers of so many tokens, generated a few at a time, all requests together."""
    ids: list[tuple[int, ...]] = [()] * len(requests)
    for done in range(0, tokens, step):
        sampling = Sampling(min(step, tokens - done))
        answers = generated(engine, sampling, [replace(request, continued=True) for request in requests])
        ids = [(*before, *(answer.ids or ())) for before, answer in zip(ids, answers, strict=True)]
        requests = [*map(continued, requests, answers)]
    return ids


def sliding(_: Path) -> PreTrainedModel:
    """Qwen 2 with a layer of full attention and one that sees 24 tokens."""
    config = Qwen2Config(
        vocab_size=258, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, initializer_range=0.2, use_sliding_window=True,
        sliding_window=24, max_window_layers=1, attn_implementation="eager",
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Qwen2ForCausalLM(config).eval()


@pytest.mark.parametrize("make", [fresh, sliding])
@pytest.mark.parametrize(("cache", "step"), [(2.0, 1), (2.0, 5), (2.0, 11), (1e-4, 5), (0.0, 11)])
def test_a_chain_in_steps_is_the_chain_at_once(
    step: int, cache: float, make: Callable[[Path], PreTrainedModel], tiny_model_folder: Path, chat: Chat
) -> None:
    """With and without a cache, and with one that is too small; steps shorter and longer than the engine's chunk."""
    plain, engine = make(tiny_model_folder), TransformersEngine(make(tiny_model_folder), chat, 4, prefix_cache_gb=cache)
    expected = [greedy_by_hand(plain, chat.prompt_ids(text), 22, {END_ID}) for text in TEXTS[2:5]]
    assert in_steps(engine, REQUESTS[2:5], 22, step) == [*map(tuple, expected)]


def test_a_continued_answer_costs_its_new_tokens(tiny_model_folder: Path, chat: Chat, columns: list[int]) -> None:
    """Of a chain in three steps and of a branch of four ids off its second; without a cache all are computed again."""
    prompt = len(chat.prompt_ids("A"))
    chain, branch = replace(ask("A", sampling=Sampling(8)), continued=True), [prompt - 1, *[1] * 24, 3, 1, 1]
    for cache, expected in ((2.0, branch), (0.0, [prompt - 1, *[1] * 8, prompt + 7, *[1] * 8])):
        engine = TransformersEngine(fresh(tiny_model_folder), chat, prefix_cache_gb=cache)
        columns.clear()
        steps, requests = [], [chain]
        for _ in range(3):
            ((_, completion),) = generate(engine, requests[-1:])
            steps.append(completion)
            requests.append(continued(requests[-1], completion))
        answer = replace(continued(requests[1], steps[1], "so: "), sampling=Sampling(2), continued=False)
        ((_, forced),) = generate(engine, [answer])
        assert columns[: len(expected)] == expected
        known = [0, prompt + 7, prompt + 15, prompt + 16] if cache else [0] * 4
        assert [completion.cached_tokens for completion in (*steps, forced)] == known
    assert forced.ids == (*greedy_by_hand(fresh(tiny_model_folder), chat.conversation_ids(answer.messages), 2, set()),)


def test_an_answer_is_continued_beside_long_prompts(tiny_model_folder: Path, chat: Chat, columns: list[int]) -> None:
    """It is not computed again for their sake: a prompt with one id to compute needs no prefill."""
    engine = TransformersEngine(fresh(tiny_model_folder), chat)
    chain = replace(ask("A", sampling=Sampling(8)), continued=True)
    ((_, completion),) = generate(engine, [chain])
    columns.clear()
    long = ask(STORY, sampling=Sampling(8))
    together = dict(generate(engine, [long, continued(chain, completion)]))
    assert columns == [len(chat.prompt_ids(STORY)) - 1 - len([256, *b"user\n"]), *[2] * 8]
    assert together[1].ids == (*greedy_by_hand(fresh(tiny_model_folder), chat.prompt_ids("A"), 16, set())[8:],)


def test_open_turns_start_before_prompts_that_wait(tiny_model_folder: Path, chat: Chat) -> None:
    """One row: each chain of two steps is done before the next one starts, though all are there from the start."""

    def chain(text: str) -> Solver[None]:
        first = replace(ask(text, sampling=Sampling(3)), continued=True)
        (completion,) = yield [first]
        started.append(text)
        yield [continued(first, completion)]
        ended.append(text)

    started: list[str] = []
    ended: list[str] = []
    engine = TransformersEngine(fresh(tiny_model_folder), chat, batch_size=1)
    solvers = map(chain, TEXTS)
    for _ in solve(solvers, engine):
        assert started == ended or started[:-1] == ended
    assert sorted(ended) == sorted(TEXTS)
    assert started == ended == sorted(TEXTS, key=lambda text: -len(chat.prompt_ids(text)))
