"""Saving a benchmark's figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tale.runs.run import code_version
from tale.storage.files import write_atomic


def publish(name: str, figures: dict[str, Any]) -> str:
    """Write the figures to runs/benchmarks, with the commit; the text that was written."""
    text = json.dumps(figures | {"commit": code_version()}, indent=1)
    write_atomic(Path("runs/benchmarks") / f"{name}.json", text + "\n")
    return text
