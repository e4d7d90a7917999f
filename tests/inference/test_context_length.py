"""What does not fit into a model's context is named before anything is generated."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from tale.config.recipes import load
from tale.data.chat import Chat
from tale.data.records import read_records
from tale.errors import UserError
from tale.inference import Request, Sampling
from tale.inference.context_length import check_context_length
from tale.search.recipe import SearchRecipe
from tale.search.run import run_search
from tale.storage.files import write_jsonl_atomic
from tests.fake_engine import ask

TEXTS = {"q/0": ["a"], "q/1": ["a", "b" * 30], "q/2": ["c" * 31]}  # 21 to 50 ids: bytes, and 20 of the template


def asked(max_tokens: int) -> dict[str, list[Request]]:
    return {id: [ask(text, sampling=Sampling(max_tokens)) for text in texts] for id, texts in TEXTS.items()}


@pytest.fixture
def chat(tiny_tokenizer: PreTrainedTokenizerFast) -> Chat:
    return Chat(tiny_tokenizer)


def test_questions_that_do_not_fit_are_named(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    """By hand: 19 ids of the template and the letters, and 10 of the answer."""
    for context, said in (
        (60, ""),
        (59, "1 of 3 questions do not fit into the model's context: q/2 is too long: prompt and answer "
             "may need 60 tokens, the model has 59. They are left unanswered, with this error\n"),
    ):  # fmt: skip
        check_context_length(asked(10), chat, context)
        assert capsys.readouterr().out == said


def test_nothing_is_asked_where_no_question_fits(chat: Chat) -> None:
    """Or where the answer alone fills the context."""
    with pytest.raises(UserError, match=r"^3 of 3 .*; lower sampling\.max_tokens or the strategies' budgets$"):
        check_context_length(asked(10), chat, 29)
    with pytest.raises(
        UserError, match=r"^sampling\.max_tokens or .* an answer of 29 tokens leaves no room .* has 29 tokens$"
    ):
        check_context_length(asked(29), None, 29)
    check_context_length(asked(29), chat, None)


def test_a_search_continues_past_a_question_that_is_too_long(
    tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["one short?", "very " * 300 + "long?", "two short?", "three short?"]
    write_jsonl_atomic(tmp_path / "q.jsonl", [{"question": text, "answer": "1"} for text in texts])
    given = ["recipe=tiny/search", f"model.name_or_path={tiny_model_folder}", "task.name=jsonl", "max_in_flight=2"]
    given += [f"task.path={tmp_path / 'q.jsonl'}", "task.limit=null", "engine.batch_size=2"]
    given += ["sampling.max_tokens=8", "engine.device=cpu", f"output={tmp_path / 'run'}"]
    records = read_records(run_search(load(SearchRecipe, given)))
    assert [r.reason == "not answered" for r in records] == [len(r.question.text) > 100 for r in records]
    assert sum(r.reason == "not answered" for r in records) == 1
    said = capsys.readouterr().out
    assert said.startswith("1 of 4 questions do not fit into the model's context: ")
    assert "1 without: not answered\n" in said
