"""The proxy on loopback in a thread, with the server and the socket of its command."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from tale.config.recipes import load
from tale.serve.app import make_app
from tale.serve.log import FILE, RequestRow, read_log
from tale.serve.recipe import ServeRecipe
from tale.serve.run import SERVER, listen, proxy_key


class Proxy:
    """A running proxy: its address, its application and its log."""

    def __init__(self, url: str, recipe: ServeRecipe):
        self.url, self.recipe = url, recipe

    def rows(self, count: int | None = None) -> list[RequestRow]:
        """The log, once it has `count` rows: the last is written after its answer."""
        file, end = Path(self.recipe.output) / FILE, time.monotonic() + 5
        while True:
            rows = list(read_log(file)) if file.exists() else []
            if count is None or len(rows) >= count:
                return rows
            assert time.monotonic() < end, rows
            time.sleep(0.005)


def recipe_of(upstream: str, folder: Path, *words: str) -> ServeRecipe:
    """A proxy's recipe: any port, no control group."""
    given = [f"upstream={upstream}", f"output={folder}", "port=0", "control_share=0", *words]
    return load(ServeRecipe, ["recipe=serve", *given])


@contextmanager
def proxy(upstream: str, folder: Path, *words: str) -> Iterator[Proxy]:
    """A proxy in front of a server, for the length of a `with`."""
    recipe = recipe_of(upstream, folder, *words)
    listener = listen(recipe)
    options: dict[str, Any] = SERVER | {"timeout_graceful_shutdown": 1}
    server = uvicorn.Server(uvicorn.Config(make_app(recipe, proxy_key(recipe)), **options))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.001)
    try:
        yield Proxy(f"http://127.0.0.1:{listener.getsockname()[1]}", recipe)
    finally:
        server.should_exit = True
        thread.join(10)
