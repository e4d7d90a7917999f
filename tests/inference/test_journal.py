"""The journal: nothing that was generated is generated again, and nothing of another model is taken for this one's."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tale.data.chat import Chat
from tale.errors import UserError
from tale.inference import Completion, Message, Request, Sampling
from tale.inference.journal import JournaledEngine, read_journal, request_key
from tale.inference.requests import RequestSource, iter_requests
from tale.inference.transformers.engine import TransformersEngine
from tests.fake_engine import ask, generate

MODEL = {"name": "m", "weights": "0123"}
GREEDY = Sampling(max_tokens=8)
REQUESTS = [ask(f"prompt {i}", sampling=GREEDY) for i in range(5)]
FIRST = REQUESTS[0]


class Counting:
    """Answers each request differently every time it is asked; killed after `dies_after` answers."""

    tokenizer = "counting"

    def __init__(self, dies_after: int | None = None, word: str = "first"):
        self.dies_after, self.word = dies_after, word
        self.asked: list[Request] = []

    def generate(self, more: RequestSource) -> Iterator[tuple[int, Completion]]:
        for i, request in reversed(list(enumerate(iter_requests(more)))):
            sampling = request.sampling
            if len(self.asked) == self.dies_after:
                raise KeyboardInterrupt
            self.asked.append(request)
            text = f"{self.word}: {request.prompt}/{request.sample} at {sampling.temperature}, seed {sampling.seed}\n…"
            yield i, Completion(text, len(self.asked), "stop", 3, ids=(*range(len(self.asked)),))


def answers(engine: JournaledEngine, requests: Sequence[Request] = REQUESTS, sampling: Sampling | None = None) -> list:
    done = dict(generate(engine, requests, sampling))
    return [done[i] for i in range(len(requests))]


def test_what_is_journalled_is_not_asked_again(tmp_path: Path) -> None:
    inner = Counting()
    engine = JournaledEngine(inner, tmp_path / "j", MODEL)
    first = answers(engine)
    assert answers(engine) == first
    engine.close()
    assert answers(JournaledEngine(inner, tmp_path / "j", MODEL)) == first
    assert sorted(r.prompt for r in inner.asked) == [r.prompt for r in REQUESTS]


def test_what_could_not_be_answered_is_asked_again(tmp_path: Path) -> None:
    class Refusing(Counting):
        def generate(self, more: RequestSource) -> Iterator[tuple[int, Completion]]:
            for i, completion in super().generate(more):
                yield i, Completion.failed("no") if self.asked[-1] == REQUESTS[2] else completion

    refusing, fresh = Refusing(), Counting(word="second")
    first = answers(JournaledEngine(refusing, tmp_path / "j", MODEL))
    assert [c.error for c in first] == [None, None, "no", None, None]
    second = answers(JournaledEngine(fresh, tmp_path / "j", MODEL))
    assert fresh.asked == [REQUESTS[2]]
    assert (second[:2], second[3:]) == (first[:2], first[3:])


@pytest.mark.parametrize("dies_after", range(len(REQUESTS)))
def test_a_killed_run_resumes_where_it_stopped(dies_after: int, tmp_path: Path) -> None:
    killed, fresh = Counting(dies_after), Counting(word="second")
    with pytest.raises(KeyboardInterrupt):
        answers(JournaledEngine(killed, tmp_path / "j", MODEL))
    resumed = answers(JournaledEngine(fresh, tmp_path / "j", MODEL))
    assert len(killed.asked) == dies_after
    assert {*killed.asked, *fresh.asked} == {*REQUESTS}
    assert len(killed.asked) + len(fresh.asked) == len(REQUESTS)
    by_first = [c.text.startswith("first") for c in resumed]
    assert by_first == [request in killed.asked for request in REQUESTS]


def test_an_answer_is_on_disk_before_it_is_used(tmp_path: Path) -> None:
    stream = generate(JournaledEngine(Counting(), tmp_path / "j", MODEL), REQUESTS, GREEDY)
    _, completion = next(stream)
    lines = [json.loads(line) for line in (tmp_path / "j").read_text().splitlines()[1:]]
    assert completion.text in [line["text"] for line in lines]


def test_a_journal_from_before_ids_were_kept_is_continued(tmp_path: Path) -> None:
    file = tmp_path / "j"
    first = answers(JournaledEngine(Counting(), file, MODEL))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        row.pop("ids", None)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert answers(JournaledEngine(Counting(dies_after=0), file, MODEL)) == [replace(c, ids=None) for c in first]


def test_a_journal_from_before_a_setting_was_kept_is_continued(tmp_path: Path) -> None:
    first = answers(JournaledEngine(Counting(), tmp_path / "j", MODEL))
    assert answers(JournaledEngine(Counting(dies_after=0), tmp_path / "j", MODEL | {"tokenizer_hash": "ab"})) == first


def test_a_half_written_last_line_is_dropped_with_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "j"
    first = answers(JournaledEngine(Counting(), file, MODEL))
    whole = file.read_bytes()
    file.write_bytes(whole[:-7])
    fresh = Counting(word="second")
    resumed = answers(JournaledEngine(fresh, file, MODEL))
    assert "dropped a half-written last line" in capsys.readouterr().out
    assert fresh.asked == [REQUESTS[0]]  # the engine's last
    assert resumed[1:] == first[1:]
    assert answers(JournaledEngine(Counting(dies_after=0), file, MODEL)) == resumed


def test_a_half_written_first_line_starts_the_journal_again(tmp_path: Path) -> None:
    file = tmp_path / "j"
    answers(JournaledEngine(Counting(), file, MODEL))
    file.write_bytes(file.read_bytes()[:9])
    assert len(answers(JournaledEngine(Counting(), file, MODEL))) == 5
    assert json.loads(file.read_text().splitlines()[0]) == MODEL


def test_another_models_journal_is_refused(tmp_path: Path) -> None:
    answers(JournaledEngine(Counting(), tmp_path / "j", MODEL))
    before = (tmp_path / "j").read_bytes()
    with pytest.raises(UserError, match=r"j: written with .*0123.*, this run has .*4567.*; use another output folder"):
        JournaledEngine(Counting(), tmp_path / "j", MODEL | {"weights": "4567"})
    assert (tmp_path / "j").read_bytes() == before


@pytest.mark.parametrize(
    "request_",
    [
        replace(FIRST, sample=1),
        replace(FIRST, messages=(Message("user", "prompt 0 "),)),
        replace(FIRST, sampling=Sampling(max_tokens=8, temperature=0.1)),
        replace(FIRST, sampling=Sampling(max_tokens=8, seed=7)),
        replace(FIRST, stop=("\n",)),
        replace(FIRST, logprobs=True),
        replace(FIRST, messages=(Message("system", "prompt 0"),)),
        replace(FIRST, messages=(*FIRST.messages, Message("assistant", ""))),
        replace(FIRST, messages=(Message("user", '[["user", "prompt 0"], ["assistant", ""]]'),)),
        replace(FIRST, messages=(*FIRST.messages, Message("assistant", "", ()))),
        replace(FIRST, messages=(*FIRST.messages, Message("assistant", "", (7,)))),
        replace(FIRST, messages=(*FIRST.messages, Message("assistant", "", (7,)), Message("assistant", "", (8,)))),
        replace(FIRST, messages=(*FIRST.messages, Message("assistant", "", (7, 8)))),
    ],
)
def test_another_request_is_a_new_call(request_: Request, tmp_path: Path) -> None:
    inner = Counting()
    engine = JournaledEngine(inner, tmp_path / "j", MODEL)
    answers(engine)
    answers(engine, [request_])
    assert inner.asked[5:] == [request_]


def test_keys_and_seeds_are_those_of_earlier_journals() -> None:
    """Literals of a version whose messages had no ids; what only helps the engine is in neither."""
    turns = (Message("system", "Be brief."), Message("user", "a"), Message("assistant", "b"))
    for request, key, seed in (
        (ask("2 + 5?", 1, Sampling(12, 0.5)), "b6d2ddf55713eedcefad2480", 46348948029806439),
        (Request(turns, Sampling(9, 0.5), 2, ("\n",), logprobs=True), "3a31579cb99d85a449194a64", 53447857885663087),
    ):
        for same in (request, replace(request, continued=True)):
            assert (request_key(same).hex(), same.draw_seed) == (key, seed)


# --- Other limits ---------------------------------------------------------------------------------------------------


class Spelling:
    """Writes the letters of the prompt, one id each, up to its "." or the limit; a sample from its own letter on."""

    tokenizer = "spelling"

    def __init__(self, has_ids: bool = True) -> None:
        self.limits: list[int] = []
        self.has_ids = has_ids

    def generate(self, more: RequestSource) -> Iterator[tuple[int, Completion]]:
        for i, request in enumerate(iter_requests(more)):
            limit = request.sampling.max_tokens
            self.limits.append(limit)
            text = request.prompt[request.sample :][:limit]
            ids, scores = tuple(map(ord, text)), tuple(-float(ord(letter)) for letter in text)
            finish = "stop" if text.endswith(".") else "length"
            ids, scores = (ids if self.has_ids else None), (scores if request.logprobs else None)
            yield i, Completion(text, len(text), finish, 3, ids=ids, logprobs=scores)


@pytest.mark.parametrize("logprobs", [False, True])
def test_a_longer_answer_is_cut_to_a_smaller_limit(logprobs: bool, tiny_tokenizer, tmp_path: Path) -> None:
    """The answer has 7 tokens: whole at limits from 7 on, and otherwise its beginning, whichever came first."""
    inner, limits = Spelling(), [12, 6, 7, 9, 1, 12]
    engine = JournaledEngine(inner, tmp_path / "j", MODEL, Chat(tiny_tokenizer))
    requests = [replace(ask("Six = 6.", 1, Sampling(limit)), logprobs=logprobs) for limit in limits]
    given = [answers(engine, [request])[0] for request in requests]
    assert inner.limits == [12]
    assert given == [
        answers(JournaledEngine(Spelling(), tmp_path / f"{r.sampling.max_tokens}", MODEL), [r])[0] for r in requests
    ]
    assert (engine.reused.calls, engine.reused.tokens) == (4, 6 + 7 + 7 + 1)
    assert (engine.repeated.calls, engine.repeated.tokens, engine.cost.calls) == (1, 7, 1)
    engine.close()
    again = JournaledEngine(inner, tmp_path / "j", MODEL, Chat(tiny_tokenizer))
    assert [answers(again, [request])[0] for request in requests] == given
    assert inner.limits == [12]


def test_a_cut_answer_is_asked_again_with_more_room(tiny_tokenizer, tmp_path: Path) -> None:
    inner = Spelling()
    engine = JournaledEngine(inner, tmp_path / "j", MODEL, Chat(tiny_tokenizer))
    texts = [answers(engine, [ask("Six = 6.", sampling=Sampling(limit))])[0].text for limit in (3, 5, 4, 2)]
    assert texts == ["Six", "Six =", "Six ", "Si"]
    assert inner.limits == [3, 5]


def test_without_ids_only_an_ended_answer_is_reused(tiny_tokenizer, tmp_path: Path) -> None:
    """An endpoint's."""
    inner = Spelling(has_ids=False)
    engine = JournaledEngine(inner, tmp_path / "j", MODEL, Chat(tiny_tokenizer))
    texts = [answers(engine, [ask("Six = 6.", sampling=Sampling(limit))])[0].text for limit in (9, 8, 7, 6)]
    assert texts == ["Six = 6.", "Six = 6.", "Six = 6", "Six = "]
    assert inner.limits == [9, 7, 6]


def test_another_stop_string_or_sample_is_not_cut(tiny_tokenizer, tmp_path: Path) -> None:
    inner, whole = Spelling(), ask("Six = 6.", sampling=Sampling(9))
    engine = JournaledEngine(inner, tmp_path / "j", MODEL, Chat(tiny_tokenizer))
    shorter = replace(whole, sampling=Sampling(3))
    answers(engine, [whole, replace(shorter, sample=1), replace(shorter, stop=("x",)), replace(shorter, logprobs=True)])
    assert inner.limits == [9, 3, 3, 3]


def test_a_journal_with_one_key_a_line_answers_its_own_requests(tiny_tokenizer, tmp_path: Path) -> None:
    """As earlier versions wrote it; a key that is none is refused."""
    file, request = tmp_path / "j", ask("Six = 6.", sampling=Sampling(9))
    answers(JournaledEngine(Spelling(), file, MODEL), [request])
    first, line = file.read_text().splitlines()
    old = {name: value for name, value in json.loads(line).items() if name != "key_without_limit"}
    file.write_text(f"{first}\n{json.dumps(old)}\n")
    inner = Spelling()
    engine = JournaledEngine(inner, file, MODEL, Chat(tiny_tokenizer))
    assert answers(engine, [request])[0].text == "Six = 6."
    answers(engine, [replace(request, sampling=Sampling(3))])
    assert inner.limits == [3]
    file.write_text(f"{first}\n{json.dumps(old | {'key_without_limit': 'k'})}\n")
    with pytest.raises(UserError, match=r"j:2: .*key_without_limit"):
        JournaledEngine(inner, file, MODEL)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_shorter_answer_is_the_beginning_of_a_longer_one(
    temperature: float, tiny_model_folder: Path, tiny_tokenizer, tmp_path: Path
) -> None:
    """Of the real engine: what the journal cuts is what the engine generates at the smaller limit, text included."""
    engine = TransformersEngine(
        AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=torch.float32), Chat(tiny_tokenizer), device="cpu"
    )
    asked = [replace(ask(f"prompt {i}", i % 2), stop=("e",), logprobs=True) for i in range(40)]
    engine.stop_token_ids += [ord("a")]
    small, large = ([replace(r, sampling=Sampling(limit, temperature)) for r in asked] for limit in (8, 30))
    journaled = JournaledEngine(engine, tmp_path / "j", MODEL, engine.chat)
    ends = Counter(completion.finish for completion in answers(journaled, large))
    assert min(ends.values()) > 3
    cut, alone = answers(journaled, small), [c for _, c in sorted(generate(engine, small))]
    assert journaled.reused.calls == len(cut)
    assert [replace(c, logprobs=None) for c in cut] == [replace(c, logprobs=None) for c in alone]
    assert [s for c in cut for s in c.logprobs] == pytest.approx([s for c in alone for s in c.logprobs], abs=1e-4)


def test_first_uses_cost_the_same_in_a_resumed_run(tmp_path: Path) -> None:
    """Each of 5 answers once, of 1 to 5 tokens; what is asked again is counted apart, and takes no time."""
    whole = JournaledEngine(Counting(), tmp_path / "j", MODEL)
    answers(whole)
    answers(whole, [FIRST])
    assert (whole.first_uses.calls, whole.first_uses.tokens, whole.repeated.calls) == (5, 1 + 2 + 3 + 4 + 5, 1)
    whole.close()
    resumed = JournaledEngine(Counting(), tmp_path / "j", MODEL)
    assert resumed.first_uses.calls == 0
    answers(resumed)
    answers(resumed, [FIRST])
    assert (resumed.first_uses.calls, resumed.first_uses.tokens, resumed.repeated.calls) == (5, 15, 1)
    assert resumed.first_uses.seconds == pytest.approx(whole.first_uses.seconds)
    assert (resumed.reused.calls, resumed.repeated.seconds) == (0, 0)


def test_a_read_journal_has_what_ended_under_another_limit(tiny_tokenizer, tmp_path: Path) -> None:
    """The answer has 7 tokens, so at a limit of 3 it has not ended."""
    engine = JournaledEngine(Spelling(), tmp_path / "j", MODEL, Chat(tiny_tokenizer))
    asked = [ask("Six = 6.", sample, Sampling(limit)) for sample, limit in ((0, 9), (1, 3))]
    answers(engine, asked)
    journal = read_journal(tmp_path / "j")
    longer = [replace(request, sampling=Sampling(20)) for request in asked]
    assert [journal.answer_to(request)[0].text for request in (*asked, longer[0])] == ["Six = 6.", "ix ", "Six = 6."]
    assert journal.answer_to(longer[1]) is None


def test_known_and_new_requests_keep_their_places(tmp_path: Path) -> None:
    engine = JournaledEngine(Counting(), tmp_path / "j", MODEL)
    answers(engine, REQUESTS[1:4:2])
    assert [c.text.partition(": ")[2].partition("/")[0] for c in answers(engine)] == [r.prompt for r in REQUESTS]


ANSWER = '{"key": "0123456789abcdef01234567", "seconds": 1.0, "text": "a", "finish": "stop", "prompt_tokens": 1, '


@pytest.mark.parametrize(
    "line",
    [
        *['{"key": "k", "text": "no more"}', "[1]", "no JSON"],
        ANSWER + '"tokens": 2, "ids": [1]}',
        ANSWER + '"tokens": 1, "ids": [1], "logprobs": []}',
    ],
)
def test_a_foreign_line_is_refused_by_file_and_line(line: str, tmp_path: Path) -> None:
    file = tmp_path / "j"
    file.write_text(f"{json.dumps(MODEL)}\n{line}\n")
    with pytest.raises(UserError, match=r"j:2: "):
        JournaledEngine(Counting(), file, MODEL)
