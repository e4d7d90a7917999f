"""Fixtures that every test may use."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import time
import urllib.request
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from tale.models.base import BaseModel
from tale.text import log_to_terminal
from tests.browser import World
from tests.tiny_llama import END_ID, byte_tokenizer, saved, tiny_llama


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


@pytest.fixture
def world() -> Iterator[World]:
    """All that a browser can reach."""
    server = World()
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread of torch: no buffers of other threads, and none that waits for another on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# --- A real server --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def served_model(
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


@pytest.fixture(scope="session")
def served_url(served_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where `transformers serve` has the model."""
    with transformers_serve(served_model, tmp_path_factory) as url:
        yield url


@contextmanager
def transformers_serve(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a model in float32, without a network."""
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(model), "--device", "cpu"]
    with started_server([*command, "--dtype", "float32"], tmp_path_factory) as url:
        yield url


@contextmanager
def started_server(command: list[str], tmp_path_factory: pytest.TempPathFactory, seconds: float = 120) -> Iterator[str]:
    """The URL of a server that takes --host and --port, once it is healthy; it may take `seconds`."""
    port, log = free_port(), tmp_path_factory.mktemp("server") / "log.txt"
    command = [*command, "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env=os.environ | {"HF_HUB_OFFLINE": "1"}
        )
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}/health", process, log, seconds)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_healthy(url: str, process: subprocess.Popen, log: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)


@pytest.fixture
def loads_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[weakref.ref]]:
    """Fails where a model is loaded while another one lives; a layer of each loaded model.

    By reference counts alone: weights are few objects, so Python's collector of cycles would run much later.
    """
    layers: list[weakref.ref] = []
    load_weights = BaseModel.load

    def load_alone(base: BaseModel, device: str = "cpu") -> PreTrainedModel:
        assert not [layer() for layer in layers if layer()]
        model = load_weights(base, device)
        layers.append(weakref.ref(model.get_decoder().layers[0].mlp.up_proj))
        return model

    monkeypatch.setattr(BaseModel, "load", load_alone)
    gc.disable()
    yield layers
    gc.enable()
