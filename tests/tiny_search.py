"""Questions of which a tiny random model answers many, and the command that searches them in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tale.config.recipes import load
from tale.data.records import read_records
from tale.search.recipe import SearchRecipe
from tale.search.run import run_search
from tale.storage.files import write_jsonl_atomic
from tests import ROOT


def answerable(model: Path, folder: Path, count: int = 12) -> list[str]:
    """What to give a search so that the answers which the model stumbles upon are the gold ones."""
    file = folder / "questions.jsonl"
    given = [
        "recipe=tiny/search",
        f"model.name_or_path={model}",
        "task.name=jsonl",
        f"task.path={file}",
        "task.limit=null",
        "engine.device=cpu",
        "engine.batch_size=4",
        "sampling.max_tokens=160",
        "sampling.temperature=1",
        "samples=3",
    ]
    texts = [f"How many pens are there in box {i}{'?' * (1 + i % 5)}" for i in range(count)]
    write_jsonl_atomic(file, [{"question": text, "answer": "0"} for text in texts])
    records = read_records(run_search(load(SearchRecipe, [*given, f"output={folder / 'blind'}"])))
    values = [[a.value for a in r.vanilla.answers if a.finish == "stop" and a.value] for r in records]
    golds = [value[0] if value else "0" for value in values]
    write_jsonl_atomic(file, [{"question": t, "answer": g} for t, g in zip(texts, golds, strict=True)])
    return given


def command(*given: str) -> subprocess.Popen[str]:
    """`python scripts/search.py …`, begun."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "search.py"), *given],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
