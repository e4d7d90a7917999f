"""The official client and curl, unmodified: at a real server behind the proxy as at the server itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from transformers import PreTrainedTokenizerFast
from transformers.utils.import_utils import is_serve_available

from tale.estimators.base import Constant
from tale.estimators.saved import EstimatorCard, save_estimator
from tests.conftest import started_server, transformers_serve
from tests.serve_proxy import Proxy, proxy
from tests.tiny_llama import saved, tiny_llama

openai = pytest.importorskip("openai", reason="pip install -e '.[openai]' brings the client")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_serve_available(), reason="`transformers serve` lacks packages: pip install -e '.[dev]'"),
]
QUESTION = "How many legs do 6 spiders have?"
LINE = "\nLet's think step by step and use less than 20 tokens:\n"
TOOLS: Any = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]


@pytest.fixture(scope="module", params=["transformers", pytest.param("vllm", marks=pytest.mark.vllm)])
def server(
    request: pytest.FixtureRequest, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """The URL of a real server, and its model's name: the folder TALE_SERVED_MODEL, else a tiny random model."""
    given = os.environ.get("TALE_SERVED_MODEL")
    if request.param == "transformers":
        if not given:
            yield request.getfixturevalue("served_url"), str(request.getfixturevalue("served_model"))
            return
        with transformers_serve(Path(given), tmp_path_factory) as url:
            yield url, given
        return
    pytest.importorskip("vllm", reason="vLLM is in the environment that `make vllm` makes")
    # The least that it takes.
    wide = given or saved(tiny_llama(hidden_size=128, head_dim=64), tiny_tokenizer, tmp_path_factory)
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(wide), "--dtype", "float32"]
    command += ["--max-model-len", "512", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    with started_server(command, tmp_path_factory, seconds=600) as url:
        yield url, str(wide)


@pytest.fixture
def tale(server: tuple[str, str], tmp_path: Path) -> Iterator[Proxy]:
    """The proxy under budgets of 20 tokens and limits of 30."""
    save_estimator(Constant(20), EstimatorCard("t", [], []), tmp_path / "constant")
    with proxy(server[0], tmp_path / "run", f"estimator={tmp_path / 'constant'}", "slack=1", "room=10") as running:
        yield running


def client(url: str, **options: Any) -> Any:
    return openai.OpenAI(base_url=url, api_key="sk-none", max_retries=0, **options)


def asked(text: str, model: str, **options: Any) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": 40,
        **options,
    }


def test_completions_are_those_of_the_prompt_with_its_budget(server: tuple[str, str], tale: Proxy) -> None:
    """Whole and streamed: as the server itself answers the prompt that the proxy makes, up to its limit."""
    url, model = server
    direct = client(url).chat.completions.create(**asked(QUESTION + LINE, model, max_tokens=30))
    ours = client(f"{tale.url}/v1")
    whole = ours.chat.completions.create(**asked(QUESTION, model))
    pieces = list(ours.chat.completions.create(**asked(QUESTION, model, stream=True)))
    text = direct.choices[0].message.content
    assert whole.choices[0].message.content == text
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices) == text
    assert whole.usage == direct.usage
    assert (whole.tale["budget"], whole.tale["limit"], whole.tale["used"]) == (20, 30, direct.usage.completion_tokens)
    last = next(piece for piece in reversed(pieces) if piece.choices and piece.choices[0].finish_reason)
    assert last.tale["budget"] == 20
    assert [row.arm for row in tale.rows(2)] == ["budget"] * 2


def test_requests_with_tools_and_other_paths_pass(server: tuple[str, str], tale: Proxy) -> None:
    url, model = server
    given = asked(QUESTION, model, tools=TOOLS)
    direct, ours = (client(at).chat.completions.create(**given) for at in (url, f"{tale.url}/v1"))
    assert ours.choices == direct.choices
    direct, ours = (httpx2.get(f"{at}/models") for at in (url, f"{tale.url}/v1"))
    assert (ours.status_code, without_ids(ours.text)) == (direct.status_code, without_ids(direct.text))
    assert tale.rows(2)[0].reason == "tools"


def test_an_error_is_the_servers_own(server: tuple[str, str], tale: Proxy) -> None:
    found = []
    for at in (server[0], f"{tale.url}/v1"):
        with pytest.raises(openai.APIStatusError) as caught:
            client(at).chat.completions.create(**asked(QUESTION, "another"))
        found.append((caught.value.status_code, caught.value.body))
    assert found[0] == found[1]


def test_a_client_whose_time_is_up_ends_the_call(server: tuple[str, str], tale: Proxy) -> None:
    with pytest.raises(openai.APITimeoutError):
        client(f"{tale.url}/v1", timeout=0.001).chat.completions.create(**asked(QUESTION, server[1]))
    stream = client(f"{tale.url}/v1").chat.completions.create(**asked(QUESTION, server[1], stream=True))
    next(iter(stream))
    stream.close()
    client(f"{tale.url}/v1").chat.completions.create(**asked(QUESTION, server[1]))
    assert tale.rows(3)[-1].outcome == "done"  # the first call left, too


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.parametrize("stream", [False, True])
def test_in_pass_mode_curl_sees_the_servers_own_bytes(server: tuple[str, str], tmp_path: Path, stream: bool) -> None:
    """But for ids and times."""
    url, model = server
    body = json.dumps(asked(QUESTION, model, stream=stream))
    with proxy(url, tmp_path, "mode=pass") as tale:
        direct, ours = (curled(f"{at}/chat/completions", body) for at in (url, f"{tale.url}/v1"))
    assert len(direct) > 100
    assert ours == direct


def curled(url: str, body: str) -> str:
    """What curl prints, with its status and type, without ids and times."""
    command = [
        "curl",
        "-sN",
        "-w",
        "\n%{http_code} %{content_type}",
        "-H",
        "Content-Type: application/json",
        "-d",
        body,
        url,
    ]
    text = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    return without_ids(text)


def without_ids(text: str) -> str:
    """A JSON text without what differs from call to call: ids and times."""
    return re.sub(r'"(id|request_id)":"[^"]*"|"created":[0-9.]+', "", text)
