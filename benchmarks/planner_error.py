"""How far is the memory plan from what training takes? Real steps on a CPU, in float32, random weights.

Each case is `step_memory.py` in a process of its own: two optimizer steps of two micro-batches. Nothing in the planner
was fitted to any of them.

    python benchmarks/planner_error.py [model=135m | model=1b]      # default: both; 1b takes up to 12 GB

Prints a table and writes runs/benchmarks/planner_error.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from report import publish
from rich.console import Console
from rich.table import Table

MODELS = {"135m": ("smollm2-135m", (256, 1024), 2), "1b": ("llama-3.2-1b", (128, 512), 1)}
COMMON = ["model.dtype=float32", "fabric.accelerator=cpu", "fabric.precision=32-true", "train.max_steps=2"]


def case(name: str, objective: str, length: int, micro_batch: int) -> dict:
    """One case's figures."""
    arguments = [f"recipe={objective}_llama8b", "model.source=random", f"model.name={name}", *COMMON]
    arguments += [
        f"data.max_length={length}",
        f"train.micro_batch={micro_batch}",
        f"train.batch_size={2 * micro_batch}",
    ]
    command = [sys.executable, str(Path(__file__).with_name("step_memory.py")), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout[done.stdout.index("{") :])


def main(chosen: list[str]) -> None:
    columns = ("model", "objective", "tokens", "micro-batch", "peak, GB", "plan, GB", "error, %")
    table = Table(*columns)
    rows = []
    for name, lengths, micro_batch in (MODELS[key] for key in chosen):
        for objective in ("sft", "dpo"):
            for length in lengths:
                figures = case(name, objective, length, micro_batch)
                values = (figures["peak, GB"], figures["plan, GB"], figures["error of the plan, %"])
                rows.append(dict(zip(columns, (name, objective, length, micro_batch, *values), strict=True)))
                table.add_row(*map(str, rows[-1].values()))
                print(json.dumps(rows[-1] | figures), file=sys.stderr)
    publish("planner_error", {"rows": rows})
    Console().print(table)


if __name__ == "__main__":
    main([argument.removeprefix("model=") for argument in sys.argv[1:]] or list(MODELS))
