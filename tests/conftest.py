"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from tale.text import log_to_terminal
from tests.tiny_llama import byte_tokenizer, saved, tiny_llama


@pytest.fixture(autouse=True)
def logged() -> None:
    """As in a command, what is logged goes to the terminal."""
    log_to_terminal("info")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real benchmark files, from TALE_DATA or beside the repository; absent, the test is skipped."""
    folder = Path(os.environ.get("TALE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no benchmark files at {folder}; set TALE_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Ids are UTF-8 bytes; 256 and 257 begin and end a ChatML turn. As in SmolLM2, 257 is both eos and pad."""
    return byte_tokenizer()


@pytest.fixture(scope="session")
def tiny_model_folder(tiny_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Llama (float32, weights wide enough that context matters) with `tiny_tokenizer`, on disk."""
    return saved(tiny_llama(), tiny_tokenizer, tmp_path_factory)


@pytest.fixture(scope="session")
def wide_model_folder(tiny_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with rows of 64 weights, a block of NF4."""
    return saved(tiny_llama(hidden_size=64), tiny_tokenizer, tmp_path_factory)
