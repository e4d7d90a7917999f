"""The report in headless Chromium: nothing stands out sideways, on a laptop or a phone, and nothing is fetched."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

import pytest

from tale.config.recipes import load
from tale.results.recipe import ReportRecipe
from tale.results.run import report
from tests.run_factories import analysis_run, estimate_run, evaluation_run, search_run, strategies_run, train_run

SITE = "http://report.test"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, NAMES)), "")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BROWSER, reason=f"no browser to look with: none of {', '.join(NAMES)} is installed"),
]
# In the page: unfold everything, then tell the frame's owner how wide it is and what it has tried to fetch.
MEASURE = """<script>addEventListener("load", () => {
  document.querySelectorAll("details").forEach((details) => { details.open = true; });
  const { scrollWidth, clientWidth } = document.documentElement;
  const fetched = performance.getEntriesByType("resource").map((entry) => entry.name);
  parent.postMessage(JSON.stringify({ scrollWidth, clientWidth, fetched }), "*");
});</script>"""
# A window is at least 500 pixels wide, a frame may be a phone.
FRAME = """<!doctype html><link rel="icon" href="data:,"><script>addEventListener("message", (event) => {
  document.body.dataset.seen = encodeURIComponent(event.data);
});</script><body><iframe src="measured.html" style="width: %dpx; height: 800px; border: 0"></iframe>"""


class World(ThreadingHTTPServer):
    """All that the browser can reach, whatever it asks for of itself: it is its proxy, and has `pages` only."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Visit)
        self.pages: dict[str, str] = {}


class Visit(BaseHTTPRequestHandler):
    server: World

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path)
        self.send_response(200 if page else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write((page or "").encode())

    def do_CONNECT(self) -> None:
        """Where https begins."""
        self.send_error(403)

    def log_message(self, format: str, *arguments: object) -> None:
        """Quietly."""


@pytest.fixture
def world() -> Iterator[World]:
    server = World()
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def chromium(folder: Path, *arguments: str) -> str:
    profile = folder / "profile"
    command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    shutil.rmtree(profile)
    return done.stdout


def seen(page: Path, width: int, world: World, more: str = "") -> dict[str, Any]:
    """How wide the page is in a window so wide, and what it fetches."""
    text = re.sub(r"<meta http-equiv=.*?>", "", page.read_text(encoding="utf-8"))  # the policy allows no other script
    text = text.replace("</body>", f"{more}{MEASURE}</body>")
    world.pages |= {f"{SITE}/frame.html": FRAME % width, f"{SITE}/measured.html": text}
    proxy = (f"--proxy-server=http://127.0.0.1:{world.server_port}", "--virtual-time-budget=5000")
    dom = chromium(page.parent, *proxy, f"--window-size={width + 100},900", "--dump-dom", f"{SITE}/frame.html")
    found = re.search(r'data-seen="([^"]*)"', dom)
    assert found, dom[:500]
    return json.loads(unquote(found[1]))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        search_run()
        search_run("runs/a_search_of_a_very_long_name_in_a_folder_that_nobody_would_choose_but_somebody_will")
        train_run()
        analysis_run()
        estimate_run()
        evaluation_run(extra=f" {'endless' * 60} <img src='http://elsewhere.test/x.png'>")
        runs = ",".join(str(path) for path in sorted(Path("runs").iterdir()))
        return report(load(ReportRecipe, [f"runs=[{runs}]", "output=runs/report", "price_per_hour=1"])).resolve()


@pytest.fixture(scope="module")
def strategies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with strategies."""
    folder = tmp_path_factory.mktemp("strategies")
    strategies_run(folder / "eval", f" {'endless' * 60} <img src='http://elsewhere.test/x.png'>")
    return report(load(ReportRecipe, [f"runs=[{folder}/eval]", f"output={folder}/report"])).resolve()


@pytest.mark.parametrize("width", [1366, 390])
@pytest.mark.parametrize("of", ["page", "strategies"])
def test_nothing_stands_out_sideways_and_nothing_is_fetched(
    of: str, width: int, world: World, request: pytest.FixtureRequest
) -> None:
    found = seen(request.getfixturevalue(of), width, world)
    assert found["clientWidth"] == width
    assert found["scrollWidth"] <= width
    assert found["fetched"] == []


def test_what_does_stand_out_or_is_fetched_would_be_seen(page: Path, world: World) -> None:
    picture = "http://elsewhere.test/picture.png"
    found = seen(page, 390, world, f'<div style="width: 700px">x</div><img src="{picture}">')
    assert found["scrollWidth"] >= 700
    assert found["fetched"] == [picture]


def test_the_picked_question_alone_is_shown(strategies: Path) -> None:
    """By the page's own script, under its policy; another script would not run."""
    text = strategies.read_text(encoding="utf-8")
    other = strategies.with_name("other.html")
    other.write_text(text.replace("</body>", "<script>document.body.innerHTML = '';</script></body>"), encoding="utf-8")
    dom = chromium(strategies.parent, "--dump-dom", other.as_uri())
    assert text.count('<div class="picked">') == dom.count('class="picked"') == 8
    assert dom.count('<div class="picked" hidden="">') == 7


def test_it_can_be_printed(page: Path) -> None:
    file = page.with_name("report.pdf")
    chromium(page.parent, "--no-pdf-header-footer", f"--print-to-pdf={file}", page.as_uri())
    assert file.read_bytes().startswith(b"%PDF")
