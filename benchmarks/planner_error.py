"""How far is the memory plan from what training takes? Real steps on a CPU, in float32, random weights.

Each case is `step_memory.py` in a separate process: one optimizer step of two micro-batches of one example or pair.
It runs twice. `held`: glibc gives freed blocks back to the system (MALLOC_MMAP_THRESHOLD_), so that the peak is what
was held at once, which is what a plan can know. `as is`: freed blocks are kept in a heap with holes, as scripts have it
(`tale.hardware.malloc.keep_freed_memory`), which is faster and takes more. Nothing in the planner was fitted to any
case.

    python benchmarks/planner_error.py [model=135m | model=1b]      # default: both; 1b takes up to 10 GB

Prints a table and writes runs/benchmarks/planner_error.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from report import publish
from words import named, only

from tale.cli import guarded
from tale.output.formats import rounded
from tale.output.tables import Column, table_of

MODELS = {"135m": ("smollm2-135m", (512, 1024)), "1b": ("llama-3.2-1b", (128, 512))}
MALLOC = {"held": {"MALLOC_MMAP_THRESHOLD_": str(128 << 10)}, "as is": {}}
COMMON = [
    *("model.name_or_path=random", "model.dtype=float32", "fabric.accelerator=cpu", "fabric.precision=32-true"),
    *("train.micro_batch_size=1", "train.global_batch_size=2"),
]


def case(name: str, objective: str, length: int, malloc: dict[str, str]) -> dict:
    """One case's figures."""
    arguments = [f"recipe={objective}_llama8b", f"model.name={name}", f"data.max_length={length}", *COMMON]
    command = [sys.executable, str(Path(__file__).with_name("step_memory.py")), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | malloc)
    return json.loads(done.stdout[done.stdout.index("{\n") :])


def main() -> None:
    chosen = named(only({"model": ",".join(MODELS)})["model"], MODELS, "model")
    rows = []
    for name, lengths in (MODELS[key] for key in chosen):
        for objective in ("sft", "dpo"):
            for length in lengths:
                row = {"model": name, "objective": objective, "tokens": length}
                for label, malloc in MALLOC.items():
                    figures = case(name, objective, length, malloc)
                    row |= {"plan, GB": figures["plan, GB"], f"peak {label}, GB": figures["peak, GB"]}
                    row |= {f"error {label}, %": figures["error of the plan, %"], f"details {label}": figures}
                rows.append(row)
                print(json.dumps(row), file=sys.stderr)
    publish("planner_error", {"rows": rows})
    given = {name: value for name, value in rows[0].items() if not name.startswith("details")}
    columns = {name: Column(name, str if isinstance(value, str) else rounded) for name, value in given.items()}
    table_of("peak", "The plan and the peak", columns, rows).show()


if __name__ == "__main__":
    guarded(main, __doc__)
