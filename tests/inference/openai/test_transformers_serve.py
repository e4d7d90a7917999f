"""The openai engine and the transformers engine give the same answers: over HTTP to a real server, and in-process."""

from __future__ import annotations

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

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_serve_available(), reason="`transformers serve` lacks packages: pip install -e '.[dev]'"),
]
TEXTS = ["2 + 2?", "Tom has 3 pens, Ann has 4.", "三加四等于几？", "A", "How many legs do 6 spiders have? " * 3]
GREEDY = Sampling(max_tokens=24)
REQUESTS = [ask(text, sampling=GREEDY) for text in TEXTS]


@pytest.mark.parametrize("tokenizer", [False, True], ids=["counted by the server", "counted by a tokenizer"])
def test_a_server_gives_the_in_process_engines_answers(
    tokenizer: bool, served_url: str, served_model: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Texts, ends and tokens, the end token included. One difference is left out here: an end as the very last allowed
    token is "length" to this server, "stop" to the engine in process.
    """
    chat = Chat(tiny_tokenizer)
    model = AutoModelForCausalLM.from_pretrained(served_model, dtype=torch.float32)
    here = TransformersEngine(model, chat, device="cpu")
    config = EndpointConfig(served_url, tokenizer=str(served_model) if tokenizer else None)
    there = EndpointEngine(str(served_model), replace(config, max_concurrency=3), chat=chat if tokenizer else None)
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


def test_a_seed_repeats_an_answer_and_another_sample_is_another(served_url: str, served_model: Path) -> None:
    """One call at a time: this server's random state is global."""
    engine = EndpointEngine(str(served_model), EndpointConfig(served_url, max_concurrency=1))
    samples = [ask("A", sample, Sampling(24, temperature=1.0)) for sample in range(3)]
    drawn = complete(engine, samples, "drawn")
    assert complete(engine, samples, "again") == drawn
    assert len({completion.text for completion in drawn}) == 3


def test_a_server_that_knows_no_groups_is_found_out(
    served_url: str, served_model: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    config = EndpointConfig(served_url, tokenizer=str(served_model), use_n=True)
    engine = EndpointEngine(str(served_model), replace(config, max_concurrency=1), chat=Chat(tiny_tokenizer))
    with pytest.raises(UserError, match="1 of 2 choices came"):
        complete(engine, [ask("A", sample, Sampling(4, temperature=1.0)) for sample in (0, 1)], "grouped")


def test_a_model_unknown_to_the_server_is_refused_in_its_words(served_url: str) -> None:
    with pytest.raises(UserError, match=r"status 400 \(.*requested 'another'"):
        complete(EndpointEngine("another", EndpointConfig(served_url, max_concurrency=1)), REQUESTS[:1], "refused")
