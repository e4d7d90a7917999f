"""The openai engine and the transformers engine give the same answers: over HTTP to a real server, and in-process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.utils.import_utils import is_serve_available

from tale.config.sections import EndpointConfig
from tale.data.chat import Chat
from tale.errors import UserError
from tale.inference.openai.engine import EndpointEngine
from tale.inference.requests import Sampling, complete
from tale.inference.transformers.engine import TransformersEngine
from tests.fake_engine import ask
from tests.tiny_llama import END_ID, saved

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_serve_available(), reason="`transformers serve` lacks packages: pip install -e '.[dev]'"),
]
TEXTS = ["2 + 2?", "Tom has 3 pens, Ann has 4.", "三加四等于几？", "A", "How many legs do 6 spiders have? " * 3]
GREEDY = Sampling(max_tokens=24)
REQUESTS = [ask(text, sampling=GREEDY) for text in TEXTS]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def folder(
    tiny_model_folder: Path, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny random Llama, made to say ASCII alone, so that its texts are its ids, and its end where it said U."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=torch.float32)
    with torch.no_grad():
        rows = model.get_input_embeddings().weight  # the output's too
        rows[128:256] = 0
        rows[[ord("U"), END_ID]] = rows[[END_ID, ord("U")]]
    # This server draws at a temperature only where the checkpoint recommends drawing.
    model.generation_config.do_sample = True
    return saved(model, tiny_tokenizer, tmp_path_factory)


@pytest.fixture(scope="module")
def url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where `transformers serve` has the model, in float32, without a network."""
    port, log = free_port(), tmp_path_factory.mktemp("serve") / "log.txt"
    command = [Path(sys.executable).with_name("transformers"), "serve", folder]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env=os.environ | {"HF_HUB_OFFLINE": "1"}
        )
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(20)


def wait_until_healthy(url: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)


@pytest.mark.parametrize("tokenizer", [False, True], ids=["counted by the server", "counted by a tokenizer"])
def test_a_server_gives_the_in_process_engines_answers(
    tokenizer: bool, url: str, folder: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Texts, ends and tokens, the end token included. One difference is left out here: an end as the very last allowed
    token is "length" to this server, "stop" to the engine in process.
    """
    chat = Chat(tiny_tokenizer)
    here = TransformersEngine(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), chat, device="cpu")
    config = EndpointConfig(url, tokenizer=str(folder) if tokenizer else None)
    there = EndpointEngine(str(folder), replace(config, max_concurrency=3), chat=chat if tokenizer else None)
    # A server gives no ids, and does not report its cache.
    expected = [replace(c, ids=None, cached_tokens=0) for c in complete(here, REQUESTS, "in process")]
    assert complete(there, REQUESTS, "over HTTP") == expected
    assert [(c.tokens, c.finish) for c in expected] == [
        (24, "length"),
        (24, "length"),
        (15, "stop"),
        (20, "stop"),
        (6, "stop"),
    ]


def test_a_seed_repeats_an_answer_and_another_sample_is_another(url: str, folder: Path) -> None:
    """One call at a time: this server's random state is global."""
    engine = EndpointEngine(str(folder), EndpointConfig(url, max_concurrency=1))
    samples = [ask("A", sample, Sampling(24, temperature=1.0)) for sample in range(3)]
    drawn = complete(engine, samples, "drawn")
    assert complete(engine, samples, "again") == drawn
    assert len({completion.text for completion in drawn}) == 3


def test_a_server_that_knows_no_groups_is_found_out(
    url: str, folder: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    config = EndpointConfig(url, tokenizer=str(folder), use_n=True)
    engine = EndpointEngine(str(folder), replace(config, max_concurrency=1), chat=Chat(tiny_tokenizer))
    with pytest.raises(UserError, match="1 of 2 choices came"):
        complete(engine, [ask("A", sample, Sampling(4, temperature=1.0)) for sample in (0, 1)], "grouped")


def test_a_model_unknown_to_the_server_is_refused_in_its_words(url: str) -> None:
    with pytest.raises(UserError, match=r"status 400 \(.*requested 'another'"):
        complete(EndpointEngine("another", EndpointConfig(url, max_concurrency=1)), REQUESTS[:1], "refused")
