"""Loading benchmarks by name, from a local JSON Lines file or from their published source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from tale.data.question import Question
from tale.errors import UserError, nearest
from tale.grading import incomparable
from tale.storage.strict_json import read_jsonl
from tale.tasks import codesearchnet, empathetic_dialogues, gsm8k, gsm8k_zero, jsonl, mathbench, mbpp, reasoning_gym

__all__ = ["NAMES", "load"]

Row = dict[str, Any]
# Each row with its "file:line", for errors.
Rows = Iterable[tuple[str, Row]]


@dataclass(frozen=True)
class Benchmark:
    """How a row becomes a question, and how to get the published rows of a split (None: only local files)."""

    question: Callable[[Row, str], Question]
    splits: tuple[str, ...] = ()
    published: Callable[[str], Rows] | None = None


def load(name: str, path: str | None, split: str, count: int | None = None, seed: int = 0) -> list[Question]:
    """All questions of a benchmark, in order; `count` and `seed` are used only by generated benchmarks.

    With a `path` the rows are those of the file, and the split is ignored. Ids are "<name>/<split or file stem>/<row>",
    rows counted from 0.

    Raises:
        UserError: unknown benchmark or split, no such file, a row of another format, or no network.
    """
    if name in GENERATED:
        return _generated(name, path, split, count, seed)
    if name not in BENCHMARKS:
        raise UserError(f"task.name={name}: unknown.{nearest(name, NAMES)} Known: {', '.join(NAMES)}")
    rows = _published(name, split) if path is None else _file(Path(path))
    group = split if path is None else Path(path).stem
    questions: list[Question] = []
    for where, row in rows:
        try:
            questions.append(_gradable(BENCHMARKS[name].question(row, f"{name}/{group}/{len(questions)}")))
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    if not questions:
        raise UserError(f"{path or name}: no rows")
    return questions


def _gradable(question: Question) -> Question:
    """The question, after checking that answers can be compared with its gold.

    Raises:
        UserError: they cannot; the caller adds file and line.
    """
    if question.metric == "accuracy" and (reason := incomparable(question.gold, question.kind)):
        raise UserError(f"gold answer {question.gold[:80]!r}: {reason}; write it more plainly, or remove the row")
    return question


def _generated(name: str, path: str | None, split: str, count: int | None, seed: int) -> list[Question]:
    if path is not None:
        raise UserError(f"task.path={path}: {name} are generated, not read; for a file use task.name=jsonl")
    if count is None:
        raise UserError(f"task.limit: is needed, the number of questions of {name} to generate")
    return GENERATED[name](split, count, seed)


def _problems(split: str, count: int, seed: int) -> list[Question]:
    from tale.tasks import problems

    return problems.load(split, count, seed)


def _file(path: Path) -> Rows:
    # Decimal, as a float would round a long gold.
    return read_jsonl(path, Row, "a JSON object", "check the path and the format", exact=Decimal)


def _published(name: str, split: str) -> Rows:
    """The rows from the network or its cache; the remedy for any error there is a local file."""
    benchmark = BENCHMARKS[name]
    if benchmark.published is None:
        raise UserError(f"task.path: not given; {name} reads a local JSON Lines file")
    if split not in benchmark.splits:
        raise UserError(f"task.split={split}: {name} has {' and '.join(benchmark.splits)}")
    try:
        return list(benchmark.published(split))
    except Exception as error:  # datasets, hub, http and file system raise exceptions of many types
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"{name} cannot be fetched ({reason}); give a local copy as task.path") from error


def _hub(arguments: dict[str, str]) -> Callable[[str], Rows]:
    def rows(split: str) -> Iterator[tuple[str, Row]]:
        from datasets import load_dataset

        for i, row in enumerate(load_dataset(**arguments, split=split)):
            yield f"{arguments['path']}, split {split}, row {i}", row

    return rows


def _downloaded(name: str, _: str) -> Rows:
    return _file(mathbench.download(name))


BENCHMARKS = {
    "gsm8k": Benchmark(gsm8k.question, gsm8k.SPLITS, _hub(gsm8k.HUB)),
    "gsm8k_zero": Benchmark(gsm8k_zero.question, gsm8k_zero.SPLITS, _hub(gsm8k_zero.HUB)),
    "jsonl": Benchmark(jsonl.question),
    "codesearchnet": Benchmark(codesearchnet.question, codesearchnet.SPLITS, _hub(codesearchnet.HUB)),
    "empathetic_dialogues": Benchmark(
        empathetic_dialogues.question, empathetic_dialogues.SPLITS, empathetic_dialogues.published
    ),
    "mbpp": Benchmark(mbpp.question, mbpp.SPLITS, _hub(mbpp.HUB)),
} | {
    name: Benchmark(mathbench.converter(name), mathbench.SPLITS, partial(_downloaded, name)) for name in mathbench.FILES
}
# Called with split, count and seed; they have no rows.
GENERATED: dict[str, Callable[[str, int, int], list[Question]]] = {
    "problems": _problems,
    **{name: partial(reasoning_gym.generate, name) for name in reasoning_gym.NAMES},
}
NAMES = (*BENCHMARKS, *GENERATED)
