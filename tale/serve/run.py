"""The command that serves the proxy."""

from __future__ import annotations

import gc
import importlib.util
import os
import socket
from pathlib import Path

from tale.config.recipes import load
from tale.errors import UserError
from tale.runs.run import lock_output, start_run
from tale.serve.log import FILE
from tale.serve.recipe import ServeRecipe
from tale.storage.folder import RECIPE
from tale.text import log_info, log_warning

NEEDED = ("fastapi", "uvicorn", "httpx2", "prometheus_client")
# Keys that may change while a log grows: rows with others are not comparable.
CHANGEABLE = {
    *("output", "upstream", "host", "port", "api_key_env", "max_body_mb", "max_concurrency", "timeout"),
    *("connect_timeout", "max_retries", "cache_size", "log_texts"),
}


def serve(recipe: ServeRecipe) -> None:
    """Serve until interrupted.

    Raises:
        UserError: a package is not installed, the folder has a log of other settings, a variable is not set, the
            estimator cannot be used, or the port is taken.
    """
    check_installed()
    import uvicorn

    from tale.serve.app import make_app

    with lock_output(recipe) as folder:
        check_settings(recipe, folder)
        app, listener = make_app(recipe, proxy_key(recipe)), listen(recipe)
        start_run(recipe, reads=[recipe.estimator] if recipe.estimator else [])
        where = f"http://{recipe.host}:{listener.getsockname()[1]}"
        log_info(f"{recipe.upstream} is served at {where}/v1; page {where}/, metrics {where}/metrics")
        if not recipe.api_key_env and recipe.host not in ("127.0.0.1", "localhost", "::1"):
            log_warning(f"warning: host={recipe.host}: whoever reaches it can use it; api_key_env requires a key")
        gc.freeze()  # what is loaded stays: no collection has to look at it, while a request waits
        uvicorn.Server(uvicorn.Config(app, **SERVER)).run([listener])


# Nothing of a request is printed: a URL may have a key in it. Headers are the upstream's own.
SERVER: dict = {
    **{"log_level": "critical", "access_log": False, "server_header": False, "date_header": False, "ws": "none"},
    **{"timeout_graceful_shutdown": 10, "proxy_headers": False},
}


def check_installed() -> None:
    """Refuse to start without the packages of the extra `serve`.

    Raises:
        UserError: one is missing.
    """
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise UserError(f"{', '.join(missing)}: not installed; pip install -e '.[serve]' installs what serving needs")


def check_settings(recipe: ServeRecipe, folder: Path) -> None:
    """Refuse to append to a log of other settings.

    Raises:
        UserError: a key outside `CHANGEABLE` has another value than the log's recipe.
    """
    if not (folder / FILE).exists() or not (folder / RECIPE).exists():
        return
    earlier, now = (vars(each) for each in (load(ServeRecipe, [f"recipe={folder / RECIPE}"]), recipe))
    if changed := [key for key in now if key not in CHANGEABLE and earlier[key] != now[key]]:
        raise UserError(f"output={folder}: its log has other settings ({', '.join(changed)}); choose another output")


def proxy_key(recipe: ServeRecipe) -> str | None:
    """The key that the proxy requires; None if it requires none.

    Raises:
        UserError: the variable is not set.
    """
    if recipe.api_key_env is None:
        return None
    if not (key := os.environ.get(recipe.api_key_env, "").strip()):
        raise UserError(f"api_key_env: the environment variable {recipe.api_key_env} is not set; set it to a key")
    return key


def listen(recipe: ServeRecipe) -> socket.socket:
    """A socket on which many clients can wait.

    Raises:
        UserError: the address cannot be used.
    """
    try:
        family = socket.AF_INET6 if ":" in recipe.host else socket.AF_INET
        return socket.create_server((recipe.host, recipe.port), family=family, backlog=2048)
    except OSError as error:
        raise UserError(f"host={recipe.host} port={recipe.port}: {error.strerror or error}; choose another") from error
