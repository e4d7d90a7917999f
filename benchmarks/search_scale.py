"""How do a search's own time and memory grow with the number of questions, and with the length of answers?

A scripted engine answers at once, so what is measured is all that the search adds to the model: prompts, grading, the
strategy, the journal (written and synced), the records. Each size runs in a separate process, because memory is the
process's peak; medians of three rounds, the sizes in turn. The journal's part is the difference to the same search
without one, set against the seconds a model's call takes (runs/benchmarks/search_speed.json, or `call=<seconds>`).

    python benchmarks/search_scale.py [folder=<on the disk in question>] [call=0.2]

Prints a table and writes runs/benchmarks/search_scale.json.
"""

from __future__ import annotations

import hashlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from report import publish
from words import only

from tale.cli import guarded
from tale.data.question import Question
from tale.data.records import write_records
from tale.errors import UserError
from tale.inference.journal import JournaledEngine
from tale.inference.requests import Completion, Engine, Request, RequestSource, Sampling, iter_requests
from tale.search.solver import search

SIZES = ((934, 150), (1868, 150), (3737, 150), (7473, 150), (1868, 600), (1868, 2400))
ROUNDS = 3


class Scripted:
    """Answers drawn from a hash of the prompt: nine of ten are right, about as long as wanted."""

    tokenizer = "scripted"

    def __init__(self, tokens: int):
        self.tokens, self.calls = tokens, 0

    def generate(self, more: RequestSource) -> Iterator[tuple[int, Completion]]:
        yield from enumerate(map(self._answer, iter_requests(more)))

    def _answer(self, request: Request) -> Completion:
        self.calls += 1
        draw = hashlib.sha256(request.prompt.encode()).digest()
        tokens = self.tokens // 2 + draw[0] * self.tokens // 255
        return Completion("word " * tokens + f"[[{7 if draw[1] < 230 else 8}]]", tokens, "stop", 100)


def questions(count: int) -> list[Question]:
    """Questions of about GSM8K's length."""
    story = "Tom has some pens and some pencils, and Ann gives him several of hers. " * 3
    return [Question(f"q/{i}", f"Story {i}: {story}How many pens does Tom have?", "7") for i in range(count)]


def run(count: int, tokens: int, folder: Path, journaled: bool) -> dict[str, float]:
    """One search, in this process: seconds, calls, and the peak of memory beyond what it had before, in MB."""
    asked, scripted = questions(count), Scripted(tokens)
    engine: Engine = JournaledEngine(scripted, folder / "journal.jsonl", {}) if journaled else scripted
    before, began = peak(), time.perf_counter()
    write_records(folder / "records.jsonl", search(asked, engine, Sampling(10 * tokens)))
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "calls": scripted.calls, "megabytes": peak() - before}


def peak() -> float:
    """The most memory this process had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(count: int, tokens: int, parent: str | None, journaled: bool) -> dict[str, float]:
    """The same in a separate process."""
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        command = [sys.executable, __file__, "one", str(count), str(tokens), folder, str(int(journaled))]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def seconds_of_a_call() -> float:
    """What a model's call took when it was last measured."""
    speed = Path("runs/benchmarks/search_speed.json")
    if not speed.exists():
        raise UserError(
            f"call: the seconds that a model's call takes; there is no {speed}, which search_speed.py writes"
        )
    return json.loads(speed.read_text())["batched: seconds a call"]


def main() -> None:
    """Every size in turn, with and without a journal."""
    own = only({"folder": "", "call": ""})
    call = float(own["call"] or seconds_of_a_call())
    runs: dict[tuple, list[dict[str, float]]] = {(*size, j): [] for size in SIZES for j in (True, False)}
    for _ in range(ROUNDS):
        for key in runs:
            runs[key].append(measured(*key[:2], own["folder"] or None, key[2]))
    median = {key: {name: statistics.median(r[name] for r in of) for name in of[0]} for key, of in runs.items()}
    rows = []
    for count, tokens in SIZES:
        one, bare = median[count, tokens, True], median[count, tokens, False]
        rows.append(
            {
                "questions": count,
                "tokens an answer": tokens,
                "calls": round(one["calls"]),
                "ms a call": round(1000 * one["seconds"] / one["calls"], 3),
                "of it the journal": round(1000 * (one["seconds"] - bare["seconds"]) / one["calls"], 3),
                "journal, share of a model's call": round((one["seconds"] - bare["seconds"]) / one["calls"] / call, 5),
                "MB more at the peak": round(one["megabytes"], 1),
            }
        )
    publish("search_scale", {"seconds of a model's call": call, "rows": rows})
    print(" | ".join(rows[0]))
    for row in rows:
        print(" | ".join(str(value).rjust(len(name)) for name, value in row.items()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        count, tokens, folder, journaled = sys.argv[2:]
        print(json.dumps(run(int(count), int(tokens), Path(folder), journaled == "1")))
    else:
        guarded(main, __doc__)
