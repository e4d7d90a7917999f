"""A search at a server that behaves oddly ends as `endpoint_behaviours` says, and goes on at a healthy one."""

from __future__ import annotations

import re
import threading
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest

from tale.config.sections import EndpointConfig, EngineConfig
from tale.data.question import Question
from tale.data.records import Record
from tale.errors import UserError
from tale.inference.build import engines
from tale.inference.openai.client import MOST
from tale.inference.openai.engine import EndpointEngine, RemoteModel
from tale.inference.requests import Sampling
from tale.search.run import summary
from tale.search.solver import search
from tests.endpoint_behaviours import BEHAVIOURS, KEY, QUESTIONS, bomb, compressed, endless, healthy
from tests.fake_endpoint import FakeEndpoint, Reply
from tests.fake_engine import ask, generate

pytest.importorskip("openai", reason="pip install -e '.[openai]' brings the client")

ASKED = [Question(f"q/{i}", row["question"], str(row["answer"])) for i, row in enumerate(QUESTIONS)]
GREEDY = Sampling(64)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a call is made again, and the key where the engine looks for it."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def searched(url: str, folder: Path) -> tuple[list[Record], int, int]:
    """The records, and how many answers the journal had before and has after; an error takes the way of errors."""
    config = EngineConfig("openai", endpoint=EndpointConfig(url, timeout=0.3, max_retries=1, max_concurrency=1))
    (engine,) = engines(config, RemoteModel("m", url, None, "chat"), folder)
    with closing(engine), closing(search(ASKED, engine, GREEDY)) as records:
        before = len(engine.offsets)
        return list(records), before, len(engine.offsets)


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_a_search_ends_as_declared_and_resumes_with_the_rest(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a healthy server, which is asked only what is left.

    8 answers in all: of four questions the vanilla one, of 2 tokens, and one under a budget of 1.
    """
    expected = BEHAVIOURS[name]
    with FakeEndpoint(expected.script) as server:
        if expected.ends:
            with pytest.raises(UserError) as caught:
                searched(server.url, tmp_path)
            text = str(caught.value)
        else:
            records, _, _ = searched(server.url, tmp_path)
            assert sum(record.target is not None for record in records) == expected.targets
            text = f"{capsys.readouterr().out}{summary(records)}"
        server.script, server.calls[:] = healthy, []
        records, before, after = searched(server.url, tmp_path)
    assert re.search(expected.said, text)
    assert len(text) < 1000
    assert KEY not in text + (tmp_path / "journal.jsonl").read_text()
    assert sum(record.target is not None for record in records) == expected.later
    assert len(server.calls) == after - before
    assert after == 8 - (4 - expected.later)
    assert not [thread.name for thread in threading.enumerate() if thread.name == "calls"]


@pytest.mark.parametrize("reply", [Reply(chunks=endless), compressed(bomb())])
def test_a_reply_takes_no_more_memory_than_it_may(reply: Reply) -> None:
    with FakeEndpoint(lambda *_: reply) as server:
        engine = EndpointEngine("m", EndpointConfig(server.url, max_retries=0, max_concurrency=1))
        tracemalloc.start()
        with pytest.raises(UserError, match="larger than 8 MB"):
            list(generate(engine, [ask("a")], GREEDY))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert most < 3 * MOST
