"""The command that serves: what it refuses before it listens, its log, and its end."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from tale.errors import UserError
from tale.serve import run
from tale.serve.log import read_log
from tale.serve.metrics import Metrics
from tale.serve.recipe import ServeRecipe
from tale.serve.run import serve
from tale.serve.saving import Moments, relative_saving
from tale.storage.files import AppendOnlyJsonl
from tests import ROOT
from tests.fake_endpoint import FakeEndpoint, answer, used
from tests.run_factories import serve_run
from tests.serve_proxy import proxy, recipe_of

UPSTREAM = "http://localhost:9/v1"


def refused(recipe: ServeRecipe) -> str:
    with pytest.raises(UserError) as caught:
        serve(recipe)
    return str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["upstream=http://$NOT_THERE/v1"], "the environment variable NOT_THERE is not set"),
        (["api_key_env=NOT_THERE"], "api_key_env: the environment variable NOT_THERE is not set"),
        (["estimator=nowhere"], "nowhere/estimator.json: cannot be read"),
        (["host=192.0.2.1"], "host=192.0.2.1 port=0: "),
    ],
)
def test_what_cannot_be_served_is_refused_by_its_key(words: list[str], message: str, tmp_path: Path) -> None:
    assert message in refused(recipe_of(UPSTREAM, tmp_path / "run", *words))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("url", ["localhost:8000/v1", "http://$ME@localhost/v1"])
def test_an_upstream_without_scheme_or_with_user_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="upstream: must be a url without user"):
        recipe_of(url, tmp_path)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert refused(recipe_of(UPSTREAM, tmp_path, f"port={port}")).startswith(f"host=127.0.0.1 port={port}: ")


def test_without_the_extra_it_says_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else found(name))
    assert refused(recipe_of(UPSTREAM, tmp_path)) == (
        "uvicorn: not installed; pip install -e '.[serve]' installs what serving needs"
    )


def test_a_log_of_other_settings_is_not_appended_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports, limits and time-outs may change."""
    folder = serve_run(str(tmp_path / "run"))
    given = ["control_share=0.05", "port=8080"]
    same = recipe_of("http://localhost:8000/v1", folder, *given, "timeout=7", "max_concurrency=2")
    run.check_settings(same, folder)
    with pytest.raises(UserError, match=r"its log has other settings \(slack, efforts\); choose another output"):
        run.check_settings(recipe_of("http://localhost:8000/v1", folder, *given, "slack=3", "efforts.low=7"), folder)


def test_the_command_serves_until_it_is_told_to_end(tmp_path: Path) -> None:
    """Whole, from its script; its log is there, and a second proxy in the same folder is refused."""
    words = ["recipe=serve", f"output={tmp_path}", "port=0", "mode=pass"]
    with FakeEndpoint(lambda *_: answer("7", usage=used(1, 2))) as server:
        command = [sys.executable, str(ROOT / "scripts" / "serve.py"), *words, f"upstream={server.url}"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
        ) as process:
            assert process.stdout
            url = process.stdout.readline().split(" is served at ")[1].split(";")[0]
            assert "another process is writing there" in refused(recipe_of(server.url, tmp_path))
            body = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
            end = time.monotonic() + 10
            while True:
                try:
                    reply = httpx2.Client(verify=False).post(f"{url}/chat/completions", json=body)
                    break
                except httpx2.ConnectError:
                    assert time.monotonic() < end
            process.send_signal(signal.SIGINT)
            assert "Traceback" not in process.communicate(timeout=20)[0]
    assert reply.json()["usage"] == used(1, 2)
    (row,) = read_log(tmp_path / "requests.jsonl")
    assert (row.arm, row.reason, row.status) == ("unchanged", "mode=pass", 200)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


# --- Figures while it runs -------------------------------------------------------------------------------------------


def moments(*values: float) -> Moments:
    found = Moments()
    for value in values:
        found.add(value)
    return found


def test_the_running_saving_is_a_ratio_of_means() -> None:
    """By hand: means 40 and 80, variances 200 and 800 over 2: each relative error is 10 / 40, and 20 / 80."""
    assert vars(moments(30, 50)) == {"count": 2, "mean": 40, "squares": 200}
    share, low, high = relative_saving(moments(30, 50), moments(60, 100))
    factor = 2.71828182845904523536 ** (1.9599639845400545 * (2 * 0.25**2) ** 0.5)
    assert (share, low, high) == pytest.approx((0.5, 1 - 0.5 * factor, 1 - 0.5 / factor))


@pytest.mark.parametrize("theirs", [(), (5.0,), (0.0, 0.0)])
def test_a_saving_against_nothing_is_not_known(theirs: tuple[float, ...]) -> None:
    assert relative_saving(moments(1, 2), moments(*theirs)) == (None, None, None)


def test_the_page_has_the_logs_figures(tmp_path: Path) -> None:
    metrics = Metrics()
    for row in read_log(serve_run(str(tmp_path)) / "requests.jsonl"):
        metrics.note(row)
    found = metrics.snapshot()
    assert found["arms"] == {"budget": 3, "control": 3, "unchanged": 2}
    assert (found["asked"], found["used"], found["estimator_tokens"]) == (80, 60, 20)
    assert (found["saved"], found["saved_tokens"]) == ({"share": 0.5, "low": 0.5, "high": 0.5}, 80)
    assert found["first_byte"] == {"median": 0.5, "p99": 0.5}
    assert [row["outcome"] for row in found["last"][:3]] == ["done", "client left", "done"]


def test_a_full_disk_takes_no_answer_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def append(*_: object) -> None:
        raise UserError("requests.jsonl: cannot be written")

    monkeypatch.setattr(AppendOnlyJsonl, "append", append)
    body = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
    with (
        FakeEndpoint(lambda *_: answer("7", usage=used(1, 2))) as server,
        proxy(server.url, tmp_path) as tale,
        httpx2.Client(verify=False) as client,
    ):
        assert client.post(f"{tale.url}/v1/chat/completions", json=body).status_code == 200
        assert "tale_log_errors_total 1.0" in client.get(f"{tale.url}/metrics").text
