"""The proxy's page in headless Chromium: its figures, and nothing stands out sideways on a laptop or a phone."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from tale.serve import app
from tale.serve.log import RequestRow, read_log
from tale.serve.metrics import Metrics
from tests.browser import SITE, World, chromium, needs_browser, seen
from tests.fake_endpoint import FakeEndpoint, answer, used
from tests.run_factories import serve_run
from tests.serve_proxy import proxy

pytestmark = [pytest.mark.slow, needs_browser]
EVIL = "<img src=http://elsewhere.test/x.png>" * 20


@pytest.mark.parametrize("width", [1366, 390])
def test_nothing_stands_out_sideways(width: int, world: World, tmp_path: Path) -> None:
    """Nor is anything fetched but the script, whatever a reason says."""
    metrics = Metrics()
    for row in serve_rows(tmp_path):
        metrics.note(row)
    script = f"{SITE}/page.js"
    world.pages[script] = (app.FOLDER / "page.js").read_text()
    figures = json.dumps(metrics.snapshot()).replace("<", r"\u003c")
    here = (
        f"<script>window.fetch = async () => new Response({figures!r});</script>"  # there before the page is measured
    )
    page = tmp_path / "page.html"
    page.write_text((app.FOLDER / "page.html").read_text().replace("<script", f"{here}<script"))
    found = seen(page, width, world)
    assert found["clientWidth"] == width
    assert found["scrollWidth"] <= width
    assert found["fetched"] == [script]


def test_the_page_shows_the_figures_under_its_policy(tmp_path: Path) -> None:
    """Its own script runs under it; what a server calls its end is text."""
    body = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
    with (
        FakeEndpoint(lambda *_: answer("7", finish=EVIL, usage=used(1, 1234))) as server,
        proxy(server.url, tmp_path, "mode=pass") as tale,
        httpx2.Client(verify=False) as client,
    ):
        for _ in range(3):
            client.post(f"{tale.url}/v1/chat/completions", json=body)
        tale.rows(3)
        dom = chromium(tmp_path, "--virtual-time-budget=3000", "--dump-dom", f"{tale.url}/")
    assert re.search(r'<dd id="requests">3<small>unchanged 3</small>', dom)
    assert dom.count("<td>200</td>") == 3
    assert "elsewhere.test" not in dom


def serve_rows(folder: Path) -> list[RequestRow]:
    """A log's rows, the last with a reason of many words."""
    rows = list(read_log(serve_run(str(folder / "run")) / "requests.jsonl"))
    return [*rows, replace(rows[-1], reason=EVIL)]
