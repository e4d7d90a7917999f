"""A search without a model, to be killed: python -m tests.fake_search <folder> <samples> <temperature>

Its answers are a function of (seed, question, budget, sample) and take a moment each; at temperature 0 seed and sample
play no part. They come in an order that nobody knows, and each call is in <folder>/calls.jsonl before it is answered.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tale.data.records import write_records
from tale.inference import Completion, Request, Sampling
from tale.inference.journal import JournaledEngine
from tale.inference.requests import RequestSource
from tale.search.solver import search
from tale.storage import files
from tests.fake_engine import Asked, FakeEngine, questions, right, said, wrong

QUESTIONS = questions(40)
Call = list[Any]  # a question's id, the budget (None: vanilla), the sample


def drawn(asked: Asked, sampling: Sampling) -> Completion:
    """One answer in ten is wrong, one in twenty cut off; under a budget it is 0.5 to 1.5 times as long as it may be."""
    draw = (sampling.seed, asked.sample) if sampling.temperature else ()
    random_ = random.Random(hashlib.sha256(repr((draw, asked.question.id, asked.budget)).encode()).digest())
    tokens = random_.randint(100, 400) if asked.budget is None else int(asked.budget * random_.uniform(0.5, 1.5)) + 1
    finish = "length" if random_.random() < 0.05 else "stop"
    made = wrong(tokens) if random_.random() < 0.1 else right(tokens, finish)
    name = json.dumps([asked.question.id, asked.budget, asked.sample])
    return said(f"{name}\n{'…' * tokens} {made.text}", tokens, made.finish)


def call_of(text: str) -> Call:
    """What was asked, from the answer's text."""
    return json.loads(text.partition("\n")[0])


class RandomEngine(FakeEngine):
    """`drawn` answers, in any order, slowly, each call logged; it asks for more now and then."""

    def __init__(self, log: Path):
        super().__init__(QUESTIONS, lambda _: said("", 0))
        self.log = log

    def generate(self, more: RequestSource) -> Iterator[tuple[int, Completion]]:
        requests: list[Request] = []
        waiting: list[int] = []
        with self.log.open("ab", buffering=0) as log:
            while True:
                if not waiting or random.random() < 0.3:
                    further = more()
                    waiting += range(len(requests), len(requests) + len(further))
                    requests += further
                if not waiting:
                    return
                i = waiting.pop(random.randrange(len(waiting)))
                asked = self._asked(requests[i])
                log.write(json.dumps([asked.question.id, asked.budget, asked.sample]).encode() + b"\n")
                time.sleep(random.expovariate(1000))
                yield i, drawn(asked, requests[i].sampling)


def run(folder: Path, samples: int, temperature: float, dies: str | None = None) -> None:
    """The search, its records in <folder>/records.jsonl; `dies` names the moment at which it kills itself."""
    folder.mkdir(parents=True, exist_ok=True)
    MOMENTS.get(dies, lambda: None)()
    engine = JournaledEngine(RandomEngine(folder / "calls.jsonl"), folder / "journal.jsonl", {"name": "drawn"})
    sampling = Sampling(max_tokens=512, temperature=temperature)
    write_records(folder / "records.jsonl", search(QUESTIONS, engine, sampling, max_in_flight=16, samples=samples))
    engine.close()


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _in_the_middle_of_a_line() -> None:
    whole = files.AppendOnlyJsonl.append

    def append(self: files.AppendOnlyJsonl, row: dict[str, Any]) -> int:
        if self.size < 20_000:
            return whole(self, row)
        self.file.write(json.dumps(row).encode()[:99])
        return _die()

    files.AppendOnlyJsonl.append = append


def _before_the_journal_is_synced() -> None:
    files.AppendOnlyJsonl.sync = _die


def _before_the_records_are_there() -> None:
    os.replace = _die


def _after_the_records_are_there() -> None:
    replace = os.replace
    os.replace = lambda *names: (replace(*names), _die())


MOMENTS: dict[str | None, Callable[[], None]] = {
    "in the middle of a line": _in_the_middle_of_a_line,
    "before the journal is synced": _before_the_journal_is_synced,
    "before the records are there": _before_the_records_are_there,
    "after the records are there": _after_the_records_are_there,
}


if __name__ == "__main__":
    from tale.cli import guarded

    guarded(lambda: run(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
