"""Files of scripts/ and benchmarks/ in this process, each with its own folder on the path while Python reads it."""

from __future__ import annotations

import importlib
import runpy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests import ROOT


def run_script(file: Path | str) -> dict[str, Any]:
    """Run a file as `python <file>` would, with the arguments in `sys.argv`; its globals."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(file).parent))
        return runpy.run_path(str(file), run_name="__main__")


def benchmark(name: str) -> ModuleType:
    """The module `benchmarks/<name>.py`, the same one that the files beside it import."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        return importlib.import_module(name)
