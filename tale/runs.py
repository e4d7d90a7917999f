"""What every run keeps of itself: the resolved recipe, the command, the versions and the commit."""

from __future__ import annotations

import json
import platform
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from tale.files import write_atomic
from tale.recipes import to_yaml

PACKAGES = ("lightning", "torch", "transformers", "peft", "bitsandbytes", "datasets", "omegaconf", "tensorboard")
# Anything that looks like a token on the command line (Hugging Face, OpenAI style) is not written down.
SECRET = re.compile(r"\b(hf_|sk-)\w[\w-]+")


def start_run(recipe: Any, **identity: Any) -> Path:
    """Create the run's folder and write `recipe.yaml` and `run.json` into it; `identity` says what models it uses."""
    folder = Path(recipe.output)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "recipe.yaml", to_yaml(recipe))
    described = {
        "command": SECRET.sub(r"\1…", shlex.join(sys.argv)),
        **identity,
        "commit": code_version(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }
    write_atomic(folder / "run.json", json.dumps(described, indent=1, ensure_ascii=False) + "\n")
    return folder


def code_version() -> str:
    """The commit of this checkout, with `-dirty` where files differ from it; "unknown" outside a checkout."""
    root = Path(__file__).resolve().parents[1]
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
