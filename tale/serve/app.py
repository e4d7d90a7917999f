"""The proxy as one FastAPI application: the relay, health, metrics and the page."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse
from prometheus_client import generate_latest

from tale.errors import UserError
from tale.serve.client import KEY, has_key
from tale.serve.estimates import Estimates
from tale.serve.log import FILE, RequestRow
from tale.serve.metrics import Metrics
from tale.serve.recipe import ServeRecipe
from tale.serve.relay import PREFIX, Relay
from tale.serve.upstream import Upstream
from tale.storage.files import AppendOnlyJsonl
from tale.text import log_warning

FOLDER = Path(__file__).parent
POLICY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}


def make_app(recipe: ServeRecipe, key: str | None) -> Routed:
    """The application; with a `key` everything but /healthz requires it.

    Raises:
        UserError: the upstream's URL names a variable that is not set, or the estimator cannot be used.
    """
    upstream, estimates, metrics = Upstream(recipe), Estimates(recipe), Metrics()
    log = AppendOnlyJsonl(Path(recipe.output) / FILE)

    def done(row: RequestRow) -> None:
        metrics.note(row)
        try:
            log.append(asdict(row))
        except UserError as error:  # its client has the answer; the metric tells
            metrics.log_errors.inc()
            log_warning(error)

    relay = Relay(recipe, upstream, estimates, key, done)
    metrics.in_flight.set_function(lambda: relay.in_flight)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await upstream.close()
        estimates.save()
        log.close()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_api_route("/healthz", lambda: PlainTextResponse("ok\n"))
    app.include_router(_pages(metrics, key))
    return Routed(relay, app)


@dataclass(frozen=True)
class Routed:
    """`/v1` by the relay, without FastAPI's layers, which would be a tenth of its time; all else by the application."""

    relay: Relay
    app: FastAPI

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        relayed = scope["type"] == "http" and scope["path"].startswith(f"{PREFIX.decode()}/")
        await (self.relay if relayed else self.app)(scope, receive, send)


def _pages(metrics: Metrics, key: str | None) -> APIRouter:
    """Metrics and page. A browser or Prometheus gives the key as the password of HTTP's Basic authentication."""

    def check(request: Request) -> None:
        given = request.headers.get(KEY.decode(), "")
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            with suppress(ValueError):
                given = base64.b64decode(credentials).decode().partition(":")[2]
        if not has_key(given, key):
            raise HTTPException(401, "the proxy's key is required", {"WWW-Authenticate": 'Basic realm="tale"'})

    pages = APIRouter(dependencies=[Depends(check)])

    @pages.get("/metrics")
    def prometheus() -> PlainTextResponse:
        return PlainTextResponse(generate_latest(metrics.registry))

    @pages.get("/stats.json")
    async def stats() -> dict[str, Any]:
        return metrics.snapshot()

    @pages.get("/")
    def page() -> HTMLResponse:
        return HTMLResponse((FOLDER / "page.html").read_bytes(), headers=POLICY)

    @pages.get("/page.js")
    def script() -> FileResponse:
        return FileResponse(FOLDER / "page.js", media_type="text/javascript")

    return pages
