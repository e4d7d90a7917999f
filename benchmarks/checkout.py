"""Commands of another checkout, run with its own code and by the names that its keys have there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tale.errors import UserError

# Keys by their name of now, and earlier names; one without an earlier name is left out where it is not known.
EARLIER: dict[str, tuple[str, ...]] = {
    "full_answers": (),
    "model.name_or_path": ("model.source",),
    "task.limit": ("benchmark.count",),
    "max_in_flight": ("window",),
    "engine.endpoint.base_url": ("engine.endpoint.url",),
    "engine.endpoint.max_concurrency": ("engine.batch_size",),
    "train.global_batch_size": ("train.batch_size",),
    "train.micro_batch_size": ("train.micro_batch",),
}


def script(checkout: Path, command: str, given: Mapping[str, Any]) -> None:
    """Run a script with the keys, and the kinds of methods, by the names that this checkout knows.

    Raises:
        UserError: it knows a key by none of the names, or the script fails.
    """
    known = python(checkout, f"scripts/{command}.py", "--help")
    words = []
    for key, value in given.items():
        names = [name for name in (key, *EARLIER.get(key, ())) if key == "recipe" or f"  {name} " in known]
        if not names and key not in EARLIER:
            raise UserError(f"{checkout}: scripts/{command}.py knows no key {key}; EARLIER has no other name for it")
        words += [f"{name}={value}" for name in names[:1]]
    if "tale_ep" not in known:
        words = [word.replace("kind: tale_ep", "kind: estimated") for word in words]
    python(checkout, f"scripts/{command}.py", *words)


def python(checkout: Path, *arguments: str) -> str:
    """What this Python prints, run in a checkout with its code.

    Raises:
        UserError: it fails.
    """
    environment = os.environ | {"PYTHONPATH": str(checkout.resolve()), "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise UserError(f"{checkout}: {' '.join(arguments)[:200]} ended with {done.returncode}; its error stands above")
    return done.stdout
