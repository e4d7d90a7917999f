"""What was only run on CPUs, on a GPU: eight minutes on one of 80 GB, or on a CPU at tiny sizes.

Weights are random, made on the device from the configs in tale/models/configs; a search uses a small real model if its
files are on this machine. No network is used. Each part is a process with a time limit: `attention` over packed
sequences against float32 on a CPU; steps of Llama-3.1-8B's shape in `bf16` and with 4-bit weights (`qlora`): speed, and
memory against the plan; `engine`: output tokens a second beside plain `generate`; `search`: records against a CPU's;
`strategies`: DDP and FSDP2 with one process; `resume` after a kill; `trl`: SFT beside TRL's trainer.

    python benchmarks/gpu_proof.py                            # size=gpu where there is a GPU, else size=tiny
    python benchmarks/gpu_proof.py parts=attention,bf16 budget_s=200
    python benchmarks/gpu_proof.py parts=search model=<folder of a small model>

From a copy of the repository that is not installed: `PYTHONPATH=. python benchmarks/gpu_proof.py`.

Writes runs/gpu_proof/results.json and results.md after each part, and each part's output beside them. A case that does
not run has the reason. Ends with exit code 1 if a part or a case failed.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from gpu_attention import attention_cases
from gpu_generation import engine, search
from gpu_models import SIZES, Cases, Size
from gpu_training import bf16, qlora, resume, strategies, trl
from words import named, only

from tale.cli import guarded
from tale.errors import UserError
from tale.runs.run import code_version
from tale.storage.files import write_atomic

FOLDER = Path("runs/gpu_proof")
LEAST = 5.0  # seconds that a part needs to begin
LIBRARIES = ("torch", "transformers", "lightning", "peft", "bitsandbytes")


class Part(NamedTuple):
    """A part's cases, and the seconds that it may take."""

    cases: Callable[[Size], Cases]
    seconds: float


PARTS = {  # the most valuable ones first
    "attention": Part(attention_cases, 90),
    "bf16": Part(bf16, 150),
    "qlora": Part(qlora, 80),
    "engine": Part(engine, 140),
    "search": Part(search, 80),
    "strategies": Part(strategies, 60),
    "resume": Part(resume, 90),
    "trl": Part(trl, 60),
}


def main() -> None:
    own = only({"parts": ",".join(PARTS), "size": "auto", "budget_s": "480", "model": Size.model})
    size = ("gpu" if torch.cuda.is_available() else "tiny") if own["size"] == "auto" else own["size"]
    named(size, SIZES, "size")
    ends = time.monotonic() + float(own["budget_s"])
    results: dict[str, Any] = {**machine(), "size": size, "parts": {}}
    for name in named(own["parts"], PARTS, "parts"):
        seconds = min(PARTS[name].seconds, ends - time.monotonic())
        results["parts"][name] = run_part(name, size, own["model"], seconds)
        write_atomic(FOLDER / "results.json", json.dumps(results, indent=1) + "\n")
        write_atomic(FOLDER / "results.md", markdown(results))
    print(markdown(results))
    if any(failed(part) for part in results["parts"].values()):
        raise SystemExit(1)


def machine() -> dict[str, Any]:
    """Where and with what this runs."""
    gpu = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if gpu else f"CPU, {os.cpu_count()} cores",
        "date": date.today().isoformat(),
        "commit": code_version(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
    }


def run_part(name: str, size: str, model: str, seconds: float) -> dict[str, Any]:
    """Run a part in a process with a time limit; the cases that it finished, whatever became of it."""
    if seconds < LEAST:
        return {"state": "skipped: the time is used up", "cases": []}
    rows, began = FOLDER / f"{name}.jsonl", time.monotonic()
    write_atomic(rows, "")
    state = "done"
    with (FOLDER / f"{name}.log").open("w") as log:
        command = [sys.executable, __file__, "--part", name, size, model, str(rows)]
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        try:
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, timeout=seconds, env=environment)
            if done.returncode:
                state = f"failed with exit code {done.returncode}, see {log.name}"
        except subprocess.TimeoutExpired:
            state = f"stopped after {seconds:.0f} s"
    lines = rows.read_text().split("\n")[:-1]  # without a last one that a kill cut off
    return {"state": state, "seconds": round(time.monotonic() - began, 1), "cases": [json.loads(x) for x in lines]}


def part(name: str, size: str, model: str, rows: str) -> None:
    """In a part's process: run its cases, and append a line for each to `rows`."""
    for label, case in PARTS[name].cases(replace(SIZES[size], model=model)):
        began = time.monotonic()
        try:
            figures = case()
        except UserError as error:
            figures = {"skipped": str(error)}
        except Exception as error:  # the other cases run
            traceback.print_exc()
            figures = {"failed": f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"}
        with Path(rows).open("a") as file:
            file.write(json.dumps({"case": label, **figures, "seconds": round(time.monotonic() - began, 1)}) + "\n")
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def failed(part: Mapping[str, Any]) -> bool:
    """Whether a part or one of its cases failed."""
    return part["state"].startswith("failed") or any("failed" in case for case in part["cases"])


def markdown(results: Mapping[str, Any]) -> str:
    """The results as a page: a table for each part, a line for each case."""
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    lines = [
        f"# {results['device']}, {results['date']}",
        "",
        f"{results['commit']}, size {results['size']}; {versions}",
    ]
    for name, part in results["parts"].items():
        lines += ["", f"## {name}: {part['state']}", ""]
        columns = list(dict.fromkeys(key for case in part["cases"] for key in case))
        if columns:
            lines += [row(columns), row(["---"] * len(columns))]
        lines += [row([shown(case.get(column, "")) for column in columns]) for case in part["cases"]]
    return "\n".join(lines) + "\n"


def row(cells: list[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def shown(value: Any) -> str:
    """A figure with four digits."""
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/")


if __name__ == "__main__":
    is_part = sys.argv[1:2] == ["--part"]
    guarded(lambda: part(*sys.argv[2:]) if is_part else main(), __doc__)
