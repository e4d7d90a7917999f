"""What every run keeps of itself: the resolved recipe, the command, the versions and the commit."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from tale.errors import UserError
from tale.files import write_atomic
from tale.recipes import to_yaml
from tale.secrets import veiled

PACKAGES = ("lightning", "torch", "transformers", "peft", "bitsandbytes", "datasets", "omegaconf", "tensorboard")
# By scoring: the source file that grades, and the library it asks.
GRADERS = {"accuracy": ("answers.py", "math-verify"), "bleu": ("bleu.py", "sacrebleu")}


def start_run(recipe: Any, folder: Path | None = None, scoring: str = "accuracy", **identity: Any) -> Path:
    """Write `recipe.yaml` and `run.json` into the run's folder (default: its output).

    `scoring` is a key of `GRADERS`, `identity` says what the run uses.
    """
    folder = folder or Path(recipe.output)
    write_atomic(folder / "recipe.yaml", to_yaml(recipe))
    described = {
        "command": shlex.join(map(veiled, sys.argv)),
        **identity,
        "commit": code_version(),
        "code": code_hash(),
        "scoring": scoring,
        "grading": grading_hash(scoring),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }
    write_atomic(folder / "run.json", json.dumps(described, indent=1, ensure_ascii=False) + "\n")
    return folder


def read_run(folder: Path) -> dict[str, Any]:
    """The `run.json` of a run.

    Raises:
        UserError: there is none.
    """
    try:
        return json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / 'run.json'}: cannot be read ({error}); is this the folder of a run?") from error


def code_hash() -> str:
    """Hash of every source file of this package."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return digest.hexdigest()


def grading_hash(scoring: str = "accuracy") -> str:
    """Hash of what decides how good an answer is: the source that reads and compares it, and the library's version."""
    file, library = GRADERS[scoring]
    source = (Path(__file__).parent / file).read_bytes()
    return hashlib.sha256(source + metadata.version(library).encode()).hexdigest()[:16]


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
