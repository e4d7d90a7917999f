"""Prompts and targets as ids: one BOS, an end to every whole answer, and one prompt for training and evaluation."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from tale.data import prompts
from tale.data.chat import Chat
from tale.data.datamodule import TaleDataModule
from tale.data.question import Question
from tale.data.records import write_records
from tale.errors import UserError
from tale.inference import Message, Sampling
from tale.inference.transformers.engine import TransformersEngine
from tests.factories import END_ID, prompt_bytes, recipe, record
from tests.fake_engine import ask, generate

BOS_ID = 258


@pytest.fixture
def bos_tokenizer(tiny_tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Like Llama 3's: BOS comes from the chat template, and from the tokenizer too where special tokens are added."""
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.add_special_tokens({"bos_token": "<|begin|>"})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", BOS_ID)]
    )
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    return tokenizer


def test_a_chat_prompt_ends_where_the_assistant_begins(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    ids = Chat(tiny_tokenizer).prompt_ids("Größe?")
    assert ids == [256, *"user\nGröße?".encode(), END_ID, 10, 256, *b"assistant\n"]


def test_a_plain_prompt_is_the_bare_text(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    chat = Chat(tiny_tokenizer, "plain")
    assert chat.prompt_ids("Q: 1\n") == list(b"Q: 1\n")
    assert chat.target_ids("1") == [*b"1", END_ID]


@pytest.mark.parametrize("template", ["chat", "plain"])
def test_one_bos_where_template_and_tokenizer_both_write_it(bos_tokenizer, template: str) -> None:
    assert bos_tokenizer("a").input_ids == [BOS_ID, *b"a"]
    chat = Chat(bos_tokenizer, template)
    ids = chat.prompt_ids("hello")
    assert ids[0] == BOS_ID
    assert ids.count(BOS_ID) == 1
    assert chat.target_ids("hello") == [*b"hello", END_ID]


def test_a_cut_off_answer_has_no_end(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    assert Chat(tiny_tokenizer).target_ids("so we", ended=False) == list(b"so we")


def test_an_answer_is_decoded_without_its_end(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    chat = Chat(tiny_tokenizer)
    assert chat.decode(chat.target_ids("Größe  12.\n[[12]]")) == "Größe  12.\n[[12]]"
    assert chat.decode([*b"12", 256], stop_token_ids=[256]) == "12"


def test_special_tokens_within_an_answer_stay_in_its_text(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    ids = [256, *b"2+5", END_ID, *b"[[7]]", END_ID]
    assert Chat(tiny_tokenizer).decode(ids) == "<|im_start|>2+5<|im_end|>[[7]]"


def test_the_end_is_the_templates_and_not_the_tokenizers_eos(tiny_tokenizer) -> None:
    """Llama 3's base tokenizer names <|end_of_text|>, its template ends a turn by <|eot_id|>."""
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.add_special_tokens({"eos_token": "<|end_of_text|>", "additional_special_tokens": ["<|im_end|>"]})
    assert tokenizer.eos_token_id == 258
    assert Chat(tokenizer).target_ids("a") == [*b"a", END_ID]
    assert Chat(tokenizer, "plain").target_ids("a") == [*b"a", 258]


def test_without_a_chat_template_the_user_is_told_what_to_set(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(UserError, match=r"set model\.template=plain"):
        Chat(tokenizer)
    assert Chat(tokenizer, "plain").prompt_ids("a") == list(b"a")


def test_without_an_end_of_sequence_token_no_answer_could_end(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="no end-of-sequence token"):
        Chat(tokenizer, "plain")


@pytest.mark.parametrize("template", ["chat", "plain"])
def test_training_and_evaluation_send_the_same_prompt(tiny_model_folder, tmp_path, monkeypatch, template) -> None:
    """Ids into the loss, against the ids that the engine hands to `generate`."""
    asked = Question("q/1", "Ann has 3 cats. How many?", "3")
    records = tmp_path / "records.jsonl"
    write_records(records, [record(asked.id, asked.text, "[[3]]")])
    made = recipe(
        tiny_model_folder, tmp_path / "run", records, "sft", f"model.template={template}", "data.val_fraction=0"
    )
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_model_folder)
    data = TaleDataModule(made, Chat(tokenizer, template))
    data.setup()

    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    sent: list[list[int]] = []

    def generates(ids: torch.Tensor, attention_mask: torch.Tensor, **_: object) -> SimpleNamespace:
        sent.extend(row[mask.bool()].tolist() for row, mask in zip(ids, attention_mask, strict=True))
        return SimpleNamespace(sequences=torch.cat([ids, torch.full((len(ids), 1), END_ID)], dim=1))

    monkeypatch.setattr(model, "generate", generates)
    engine = TransformersEngine(model, Chat(tokenizer, template), device="cpu")
    requests = [ask(prompts.vanilla(asked)), ask("a longer one " * 40)]
    list(generate(engine, requests, Sampling(max_tokens=4)))
    assert data.train[0].prompt in sent

    (batch,) = next(iter(data.train_dataloader()))
    seen = batch.input_ids[: int(batch.sources[0]) + 1].tolist()
    assert seen == data.train[0].prompt
    if template == "chat":
        assert seen == prompt_bytes(asked.text)


# --- Conversations --------------------------------------------------------------------------------------------------


def test_a_conversation_of_one_user_turn_is_the_prompt(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    chat = Chat(tiny_tokenizer)
    assert chat.conversation_ids([Message("user", "hello")]) == chat.prompt_ids("hello")


def test_an_open_turn_is_what_training_has_behind_the_prompt(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    chat = Chat(tiny_tokenizer)
    turns = [Message("user", "hello"), Message("assistant", "so we")]
    assert chat.conversation_ids(turns) == chat.prompt_ids("hello") + chat.target_ids("so we", ended=False)


def test_turns_are_written_by_the_template(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    turns = [Message("system", "Be brief."), Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    written = tiny_tokenizer.apply_chat_template(list(map(vars, turns)), add_generation_prompt=True, tokenize=False)
    ids = tiny_tokenizer(written, add_special_tokens=False).input_ids
    assert Chat(tiny_tokenizer).conversation_ids(turns) == ids


def test_bare_text_is_one_turn(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    chat = Chat(tiny_tokenizer, "plain")
    assert chat.conversation_ids([Message("user", "a\n"), Message("assistant", "b")]) == list(b"a\nb")
    with pytest.raises(UserError, match=r"model\.template=plain: bare text is one user turn"):
        chat.conversation_ids([Message("user", "a"), Message("assistant", "b"), Message("user", "c")])


def test_a_generated_part_keeps_its_ids(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """Ids that the tokenizer would write in another way: half a character, and the end of a turn."""
    chat = Chat(tiny_tokenizer)
    first, second = (0xC3, *b"so", END_ID), (*b"[7",)
    parts = [Message("assistant", "�so", first), Message("assistant", " Wait."), Message("assistant", "[7", second)]
    ids = chat.conversation_ids([Message("user", "hello"), *parts])
    assert ids == [*chat.prompt_ids("hello"), *first, *b" Wait.", *second]


def test_only_the_first_part_of_text_has_the_lead(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """Mistral's space before an answer; what the model generated has it already, if the model wrote it."""
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['content'] if m['role'] == 'user' else ' ' + m['content'] + "
        "'<|im_end|>' }}{% endfor %}"
    )
    chat, user = Chat(tokenizer), Message("user", "hello")
    text, generated = Message("assistant", "so"), Message("assistant", "so", (*b"so",))
    assert chat.conversation_ids([user, text, text]) == [256, *b"hello", *b" soso"]
    assert chat.conversation_ids([user, generated, text]) == [256, *b"hello", *b"soso"]


def test_a_closed_turn_in_parts_is_one_turn(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """The template writes it: role and content, without ids."""
    chat, a, c = Chat(tiny_tokenizer), Message("user", "a"), Message("user", "c")
    parts = [Message("assistant", "so", (1, 2)), Message("assistant", " we")]
    assert chat.conversation_ids([a, *parts, c]) == chat.conversation_ids([a, Message("assistant", "so we"), c])
