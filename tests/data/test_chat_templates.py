"""Chat templates of every kind: prompt, target and end as a whole conversation has them, or a refusal that says why.

The templates are short ones of our own, each built as those of a family of models.
"""

from __future__ import annotations

import copy
import datetime

import pytest
import transformers.utils.chat_template_utils as library
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tale.data.chat import Chat
from tale.errors import UserError
from tests.tiny_llama import CHATML, END_ID, byte_tokenizer

OPENED = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
MESSAGES = CHATML.removesuffix(OPENED)
LLAMA3 = (
    "{{ '<s>' }}{% for m in messages %}{{ '<|head|>' + m.role + '<|/head|>\n\n' + m.content | trim + '<|eot|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|head|>assistant<|/head|>\n\n' }}{% endif %}"
)
PHI3 = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ '</s>' }}{% endif %}"
)
MISTRAL = (
    "{{ '<s>' }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + '</s>' }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ '<s>' }}{% for m in messages %}<turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}</turn>\n{% endfor %}{% if add_generation_prompt %}<turn>model\n{% endif %}"
)
# The last answer gets an empty thought where it has none of its own.
QWEN3 = (
    "{% for m in messages %}{% set thought = m.content.split('</think>')[0].split('<think>')[-1].strip() if '</think>' "
    "in m.content else '' %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' and loop.last %}"
    "{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}{{ m.content.split('</think>')[-1].lstrip('\n') + "
    "'<|im_end|>\n' }}{% endfor %}" + OPENED
)
# A channel's name comes before the answer; an answer that names one itself is refused.
HARMONY = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{% if '<|channel|>' in m.content %}"
    "{{ raise_exception('no') }}{% endif %}{{ '<|start|>assistant<|channel|>final<|message|>' + m.content }}"
    "<|return|>{% else %}{{ '<|start|>user<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
DEEPSEEK = (
    "{{ '<s>' }}{% for m in messages %}{% if m.role == 'user' %}{{ '<|User|>' + m.content }}{% else %}"
    "{{ '<|Assistant|>' + m.content + '</s>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|Assistant|>"
    "{% endif %}"
)
QWEN25 = "{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}" + CHATML
CODER = "{{ '<s>' }}{% for m in messages %}{{ '### ' + m.role + ':\n' + m.content + '\n<|EOT|>\n' }}{% endfor %}" + (
    "{% if add_generation_prompt %}{{ '### assistant:\n' }}{% endif %}"
)


def tokenizer(template: str | dict, *special: str, plain: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """Bytes and these tokens. The special ones are not named: what ends a sequence is called <|im_end|>."""
    made = byte_tokenizer()
    made.add_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    made.add_tokens([AddedToken(text, special=False, normalized=False) for text in plain])
    made.chat_template = template
    return made


KINDS = {
    # template and special tokens; the prompt of "Q"; the target of "A"
    "Llama 3": (
        (LLAMA3, "<s>", "<|head|>", "<|/head|>", "<|eot|>"),
        "<s><|head|>user<|/head|>\n\nQ<|eot|><|head|>assistant<|/head|>\n\n",
        "A<|eot|>",
    ),
    "Phi 3": (
        (PHI3, "<|user|>", "<|assistant|>", "<|end|>", "</s>"),
        "<|user|>\nQ<|end|>\n<|assistant|>\n",
        "A<|end|>",
    ),
    "Mistral": ((MISTRAL, "<s>", "</s>"), "<s>[INST] Q [/INST]", " A</s>"),
    "Gemma": ((GEMMA, "<s>", "<turn>", "</turn>"), "<s><turn>user\nQ</turn>\n<turn>model\n", "A</turn>"),
    "SmolLM2": ((CHATML,), "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n", "A<|im_end|>"),
    "Qwen 2.5": (
        (QWEN25,),
        "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n",
        "A<|im_end|>",
    ),
    "Qwen 3": (
        (QWEN3, "<think>", "</think>"),
        "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n",
        "<think>\n\n</think>\n\nA<|im_end|>",
    ),
    "gpt-oss": (
        (HARMONY, "<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"),
        "<|start|>user<|message|>Q<|end|><|start|>assistant",
        "<|channel|>final<|message|>A<|return|>",
    ),
    "DeepSeek": (
        (DEEPSEEK, "<s>", "<|User|>", "<|Assistant|>", "</s>"),
        "<s><|User|>Q<|Assistant|>",
        "A</s>",
    ),
    "DeepSeek Coder": (
        (CODER, "<s>", "<|EOT|>"),
        "<s>### user:\nQ\n<|EOT|>\n### assistant:\n",
        "A\n<|EOT|>",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_prompt_and_target_are_the_template_s_conversation(kind: str) -> None:
    made, prompt, target = KINDS[kind]
    chat = Chat(tokenizer(*made))
    assert chat.tokenizer.decode(chat.prompt_ids("Q")) == prompt
    assert chat.tokenizer.decode(chat.target_ids("A")) == target
    end = "<" + target.rpartition("<")[2]
    assert chat.tokenizer.convert_ids_to_tokens(chat.target_ids("A")[-1]) == end
    assert chat.stop_token_ids(None) == [chat.tokenizer.convert_tokens_to_ids(end)]
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    whole = chat.tokenizer.apply_chat_template(turns, return_dict=True).input_ids
    both = chat.prompt_ids("Q") + chat.target_ids("A")
    assert whole[: len(both)] == both


def test_literal_ids_of_the_three_models_that_are_trained_here() -> None:
    """SmolLM2, Qwen 2.5 with its own system prompt, and Llama 3.1, which trims a message."""
    chatml = [256, *b"user\nQ\n", 257, 10, 256, *b"assistant\n"]
    assert Chat(tokenizer(CHATML)).prompt_ids("Q\n") == chatml
    assert Chat(tokenizer(QWEN25)).prompt_ids("Q\n") == [256, *b"system\nYou are helpful.", 257, 10, *chatml]
    llama = Chat(tokenizer(*KINDS["Llama 3"][0]))
    begin, head, headed, eot = 258, 259, 260, 261
    opened = [head, *b"assistant", headed, *b"\n\n"]
    assert llama.prompt_ids("Q\n") == [begin, head, *b"user", headed, *b"\n\nQ", eot, *opened]
    for chat, end in ((Chat(tokenizer(CHATML)), 257), (Chat(tokenizer(QWEN25)), 257), (llama, eot)):
        for answer in ("[[7]]", " A \n", "\n\nA", ""):
            assert chat.target_ids(answer) == [*answer.encode(), end]
            assert chat.target_ids(answer, ended=False) == [*answer.encode()]


# --- The end --------------------------------------------------------------------------------------------------------


def test_chatml_s_tokens_may_be_added_as_plain_ones() -> None:
    template = CHATML.replace("im_", "turn_")
    chat = Chat(tokenizer(template, plain=("<|turn_start|>", "<|turn_end|>")))
    assert chat.target_ids("A") == [*b"A", 259]
    assert chat.stop_token_ids(None) == [259]
    assert chat.stop_token_ids([257, 5]) == [5, 257, 259]


def test_white_space_before_the_end_stands_once() -> None:
    chat = Chat(tokenizer(*KINDS["DeepSeek Coder"][0]))
    assert chat.target_ids("A\n") == chat.target_ids("A") == [*b"A\n", 259]
    assert chat.target_ids("A\n", ended=False) == [*b"A\n"]


def test_added_tokens_of_white_space_end_nothing() -> None:
    """Gemma's line breaks are added tokens."""
    chat = Chat(tokenizer("{% for m in messages %}{{ m.content + '\n\n</turn>' }}{% endfor %}", "\n\n", "</turn>"))
    assert chat.target_ids("A") == [*b"A", 258, 259]


@pytest.mark.parametrize("behind", ["", "\n", "{% if m.role == 'tool' %}<|im_end|>{% endif %}"])
def test_without_an_end_in_the_template_it_is_the_tokenizers(behind: str) -> None:
    chat = Chat(tokenizer("{% for m in messages %}{{ m.content }}" + behind + "{% endfor %}"))
    assert chat.target_ids("A") == [*b"A", END_ID]


# --- What a template writes before an answer ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "answer", "written"),
    [
        ("Qwen 3", "<think>\nhm\n</think>\n\nA", "<think>\nhm\n</think>\n\nA<|im_end|>"),
        ("Qwen 3", "<think>hm</think>A", "<think>hm</think>A<|im_end|>"),
        ("Qwen 3", "think", "<think>\n\n</think>\n\nthink<|im_end|>"),
        ("Qwen 3", "", "<think>\n\n</think>\n\n<|im_end|>"),
        ("gpt-oss", "<|channel|>analysis<|message|>hm", "<|channel|>analysis<|message|>hm<|return|>"),
        ("Mistral", " A", " A</s>"),
        ("Mistral", "A ", " A </s>"),
    ],
)
def test_an_answer_that_brings_its_own_opening_gets_no_other(kind: str, answer: str, written: str) -> None:
    chat = Chat(tokenizer(*KINDS[kind][0]))
    assert chat.tokenizer.decode(chat.target_ids(answer)) == written


def test_an_opening_that_may_not_be_generated_is_not_counted() -> None:
    chat = Chat(tokenizer(*KINDS["Qwen 3"][0]))
    assert (chat.count("A"), chat.count("A", ended=False)) == (2, 1)


def test_an_answer_is_encoded_where_it_stands() -> None:
    """By itself its first word would get the space of a text's beginning, as in Llama 2, Mistral and Phi 3."""
    vocabulary = {"▁": 0, "a": 1, "▁a": 2, "b": 3, "\n": 4, "<unk>": 5}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[("▁", "a")], unk_token="<unk>"))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Replace("▁", " ")
    made.add_special_tokens(["</s>"])
    plain = Chat(PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>"), "plain")
    assert plain.tokenizer("a", add_special_tokens=False).input_ids == [2]
    assert plain.target_ids("a b") == [1, 0, 3, 6]


def test_an_answer_is_encoded_behind_the_prompts_own_ids() -> None:
    """Also where the answer's beginning would join the prompt's last token."""
    vocabulary = {text: id for text, id in byte_tokenizer().get_vocab().items() if id < 256} | {"ĊĊ": 256}
    joined = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ċ", "Ċ")]))
    joined.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    joined.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    chat = Chat(PreTrainedTokenizerFast(tokenizer_object=joined, eos_token="<|im_end|>", chat_template=CHATML))
    assert chat.prompt_ids("Q")[-10:] == [*b"assistant\n"]
    assert chat.target_ids("\nA") == [*b"\nA", 258]
    assert chat.target_ids("\n\nA") == [256, *b"A", 258]


# --- Refused --------------------------------------------------------------------------------------------------------

PARTS = MESSAGES.replace("{{ message['content'] }}", "{% for p in message['content'] %}{{ p['text'] }}{% endfor %}")
REFUSED = {
    "no prefix": (
        MESSAGES + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",
        r"ends a prompt in '\S*assistant\\n<think>\\n', but does not write that before an answer",
    ),
    "no generation prompt": (
        MESSAGES,
        r"ignores add_generation_prompt: it writes '<\|im_start\|>assistant\\n' before an answer, but in no prompt",
    ),
    "parts": (PARTS + OPENED, r"leaves out the user's text; some expect a message's content as a list of parts"),
    "no answer": ("{{ messages[0].content }}<|im_end|>", r"leaves out the assistant's text"),
    "raises": ("{{ raise_exception('system message\nneeded') }}", r"raises TemplateError \(system message needed\)"),
    "raises another error": ("{{ messages[0].content + 1 }}", r"raises TypeError \("),
    "syntax": ("{% for %}", r"raises TemplateSyntaxError \("),
    "text as the end": (
        CHATML.replace("im_end", "eom"),
        r"ends an answer with the text '<\|eom\|>', which is not an added token",
    ),
    "text before the end": (
        CHATML.replace("<|im_end|>", " [END]<|im_end|>"),
        r"ends an answer with the text '\[END\]<\|im_end\|>', which is not an added token",
    ),
    "named templates": ({"tool_use": CHATML, "rag": CHATML}, r"raises ValueError \("),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_template_unfit_for_training_is_refused_with_a_reason(kind: str) -> None:
    template, reason = REFUSED[kind]
    mend = r".*\. Give it another one \(chat_template\.jinja\), or set model\.template=plain to send bare text$"
    with pytest.raises(UserError, match=r"^model\.template=chat: the tokenizer's chat template " + reason + mend):
        Chat(tokenizer(template))
    assert Chat(tokenizer(template), "plain").prompt_ids("Q") == list(b"Q")


# --- Clock and identity ---------------------------------------------------------------------------------------------

DATED = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{% macro today() %}{{ strftime_now('%Y-%m-%d') }}{% endmacro %}{{ date_string + '/' + today() + '\n' }}" + CHATML
)


def test_the_template_s_clock_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tomorrow(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return cls(2030, 1, 1)

    first = Chat(tokenizer(DATED))
    monkeypatch.setattr(library, "datetime", Tomorrow)
    assert "01 Jan 2030" in tokenizer(DATED).apply_chat_template([{"role": "user", "content": "Q"}], tokenize=False)
    later = Chat(tokenizer(DATED))
    assert first.prompt_ids("Q") == later.prompt_ids("Q")
    assert later.tokenizer.decode(later.prompt_ids("Q")).startswith("26 Jul 2024/2024-07-26\n<|im_start|>user\nQ")
    assert first.fingerprint == later.fingerprint


def test_the_fingerprint_is_of_vocabulary_and_template(tmp_path) -> None:
    """It survives saving."""
    chat = Chat(tokenizer(CHATML))
    chat.tokenizer.save_pretrained(tmp_path)
    assert Chat(PreTrainedTokenizerFast.from_pretrained(tmp_path)).fingerprint == chat.fingerprint
    begun = copy.deepcopy(chat.tokenizer)
    begun.chat_template = "{{ bos_token }}" + CHATML
    others = [
        Chat(chat.tokenizer, "plain"),
        Chat(begun),
        Chat(tokenizer(CHATML, "<|more|>")),
        Chat(tokenizer("{# the same #}" + CHATML)),
    ]
    assert len({chat.fingerprint, *(other.fingerprint for other in others)}) == 5
