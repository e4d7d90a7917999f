"""Headless Chromium, in which a page is looked at: how wide it is, and what it fetches."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

SITE = "http://report.test"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, NAMES)), "")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
)
needs_browser = pytest.mark.skipif(
    not BROWSER, reason=f"no browser to look with: none of {', '.join(NAMES)} is installed"
)
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
