"""The report in headless Chromium: nothing stands out sideways, on a laptop or a phone, and nothing is fetched."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest
from handmade_runs import evaluation_run, search_run, train_run

from tale.config import ReportRecipe
from tale.recipes import load
from tale.report.run import report

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, NAMES)), "")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *(
        "--disable-background-networking",
        "--disable-component-update",
        "--hide-scrollbars",
        "--virtual-time-budget=5000",
    ),
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BROWSER, reason=f"no browser to look with: none of {', '.join(NAMES)} is installed"),
]
# In the page: unfold everything, then tell the frame's owner how wide it is and what it has fetched.
MEASURE = """<script>addEventListener("load", () => {
  document.querySelectorAll("details").forEach((details) => { details.open = true; });
  const { scrollWidth, clientWidth } = document.documentElement;
  const fetched = performance.getEntriesByType("resource").map((entry) => entry.name);
  parent.postMessage(JSON.stringify({ scrollWidth, clientWidth, fetched }), "*");
});</script>"""
# A window is at least 500 pixels wide, a frame may be a phone.
FRAME = """<!doctype html><script>addEventListener("message", (event) => {
  document.body.dataset.seen = encodeURIComponent(event.data);
});</script><body><iframe src="measured.html" style="width: %dpx; height: 800px; border: 0"></iframe>"""


def chromium(folder: Path, *arguments: str) -> str:
    profile = folder / "profile"
    done = subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={profile}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    shutil.rmtree(profile)
    return done.stdout


def seen(page: Path, width: int, more: str = "") -> dict:
    """The page's width and what it fetches, in a window so wide."""
    measured, frame = page.with_name("measured.html"), page.with_name("frame.html")
    measured.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{more}{MEASURE}</body>"))
    frame.write_text(FRAME % width)
    dom = chromium(page.parent, f"--window-size={width + 100},900", "--dump-dom", frame.as_uri())
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
        evaluation_run(extra=f" {'endless' * 60} <script>fetch('x')</script>")
        runs = ",".join(str(path) for path in sorted(Path("runs").iterdir()))
        return report(load(ReportRecipe, [f"runs=[{runs}]", "output=runs/report", "hourly=1"])).resolve()


@pytest.mark.parametrize("width", [1366, 390])
def test_nothing_stands_out_sideways_and_nothing_is_fetched(page: Path, width: int) -> None:
    found = seen(page, width)
    assert found["clientWidth"] == width
    assert found["scrollWidth"] <= width
    assert found["fetched"] == []


def test_what_does_stand_out_or_is_fetched_would_be_seen(page: Path) -> None:
    found = seen(page, 390, '<div style="width: 700px">x</div><img src="picture.png">')
    assert found["scrollWidth"] >= 700
    assert [name.rpartition("/")[2] for name in found["fetched"]] == ["picture.png"]


def test_it_can_be_printed(page: Path) -> None:
    file = page.with_name("report.pdf")
    chromium(page.parent, "--no-pdf-header-footer", f"--print-to-pdf={file}", page.as_uri())
    assert file.read_bytes().startswith(b"%PDF")
