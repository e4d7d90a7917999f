"""Every pair of commands on one folder at the same time: one wins, the other says so, the files are the winner's.

    python -m tests.concurrent_commands [times=20] [seed=0] [pairs=train+train,search+merge]

Each command has two recipes, a and b, with other results. Both processes are forked from this one, the second up to a
second after the first, at random. "One" counts the races in which one was refused; "in turn" those in which the second
began after the first had ended, so that both were done, one after the other. The folder's files are compared with those
of a run that was alone, byte for byte, but for the journals, whose lines hold seconds (without them they are compared),
and TensorBoard's events, which hold the time of day. A race that ended otherwise is printed, and the exit code is 1.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import torch

from tale.analysis.estimators.recipe import EstimateRecipe
from tale.analysis.estimators.run import run_estimate
from tale.analysis.recipe import AnalyseRecipe
from tale.analysis.run import analyse
from tale.cli import guarded
from tale.config import recipes
from tale.config.training import TrainRecipe
from tale.data.records import write_records
from tale.evaluation.recipe import EvaluateRecipe
from tale.evaluation.run import evaluate
from tale.results.recipe import ReportRecipe
from tale.results.run import report
from tale.runs.run import finish_run, start_run
from tale.search.recipe import SearchRecipe
from tale.search.run import run_search
from tale.search.solver import search
from tale.search.strategies import grid
from tale.training.merge import MergeRecipe, merge
from tale.training.run import train
from tests.factories import arguments, pairs
from tests.fake_engine import GREEDY, FakeEngine, questions, right, wrong
from tests.tiny_llama import byte_tokenizer, tiny_llama

OUTPUT = "run"  # below the folder that a process is started in, so that both, and those alone, have the same recipe
SHARES = [0.25, 0.5]
REFUSALS = (
    "another process is writing there",
    "has the results of",
    "exists; give a new folder",
    "written with another",  # of training with resume=auto: the checkpoint that the other left
    "cannot be written (Directory not empty)",  # of merging: the other has begun in the meantime
)


@dataclass(frozen=True)
class Command:
    """What is run, and what its recipes `a` and `b` are given."""

    run: Callable[[Any], object]
    kind: type
    given: tuple[list[str], list[str]]

    def __call__(self, which: int) -> None:
        """Run one of the two."""
        self.run(recipes.load(self.kind, [*self.given[which], f"output={OUTPUT}"]))


def commands(made: Path) -> dict[str, Command]:
    """Every command that writes a folder, on the inputs in `made`."""
    either = lambda shared, a, b: ([*shared, *a], [*shared, *b])  # noqa: E731
    model = [f"model.name_or_path={made / 'model'}"]
    training = [*arguments(made / "model", Path(OUTPUT), made / "records.jsonl", "sft", "train.max_steps=2")]
    lr = ["optimizer.lr=1e-2"], ["optimizer.lr=2e-2"]
    searched = [f"records=[{made / name / 'records.jsonl'}]" for name in "ab"]
    estimated = [f"train_records=[{made / 'a' / 'records.jsonl'}]", "coverage=0.5"]
    tokens = ["sampling.max_tokens=4"], ["sampling.max_tokens=6"]
    evaluated = [*model, "recipe=tiny/eval", "task.limit=2", "methods=[{kind: direct},{kind: vanilla}]"]
    merged = [[*model, "model.name=tiny-llama", "model.dtype=float32", f"adapter={made / n / 'adapter'}"] for n in "cd"]
    return {
        "search": Command(run_search, SearchRecipe, either([*model, "recipe=tiny/search", "task.limit=2"], *tokens)),
        "train": Command(train, TrainRecipe, either(training, *lr)),
        "resume": Command(train, TrainRecipe, either([*training, "resume=auto"], *lr)),
        "evaluate": Command(evaluate, EvaluateRecipe, either(evaluated, *tokens)),
        "estimate": Command(run_estimate, EstimateRecipe, either(estimated, ["ridge=1"], ["ridge=2"])),
        "analyse": Command(analyse, AnalyseRecipe, either([], searched[:1], searched[1:])),
        "report": Command(report, ReportRecipe, either([f"runs=[{made / 'begun'}]"], [], ["price_per_hour=1"])),
        "merge": Command(merge, MergeRecipe, (merged[0], merged[1])),
    }


def prepare(made: Path) -> None:
    """What the commands read: a model, records, searches `a` and `b` and one only `begun`, adapters `c`, `d`."""
    tiny_llama().save_pretrained(made / "model")
    byte_tokenizer().save_pretrained(made / "model")
    write_records(made / "records.jsonl", pairs(12))
    for name, least in (("a", 30), ("b", 60)):
        given = ["recipe=tiny/search", "strategy=grid", f"budget_fractions={SHARES}", "sampling.max_tokens=512"]
        run = start_run(recipes.load(SearchRecipe, [*given, f"output={made / name}"]), None, ["records.jsonl"])
        asked = questions(60)
        engine = FakeEngine(asked, lambda a, least=least: _reply(a.budget, least))
        write_records(run / "records.jsonl", search(asked, engine, GREEDY, strategy=partial(grid, fractions=SHARES)))
        finish_run(run)
    start_run(recipes.load(SearchRecipe, ["recipe=tiny/search", f"output={made / 'begun'}"]))
    for name, lr in (("c", "1e-2"), ("d", "2e-2")):
        options = ["train.max_steps=2", f"optimizer.lr={lr}"]
        train(
            recipes.load(TrainRecipe, arguments(made / "model", made / name, made / "records.jsonl", "sft", *options))
        )


def _reply(budget: int | None, least: int) -> Any:
    return right(200) if budget is None else right(budget) if budget >= least else wrong(budget)


def forked(folder: Path, name: str, work: Callable[[], object]) -> int:
    """Begin `work` in a process of its own, in `folder`, its words in <name>.out and <name>.err; the process."""
    folder.mkdir(parents=True, exist_ok=True)
    if process := os.fork():
        return process
    os.chdir(folder)
    for stream, end in ((sys.stdout, "out"), (sys.stderr, "err")):
        stream.flush()
        os.dup2(os.open(f"{name}.{end}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), stream.fileno())
    code = 70
    with contextlib.suppress(BaseException):
        try:
            guarded(work)
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def ended(process: int) -> int:
    """Its exit code; a signal's number, negative."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def files(folder: Path) -> dict[str, bytes]:
    """All that must be the winner's to the byte, by name."""
    found = [file for file in folder.rglob("*") if file.is_file()]
    timed = ("journal", "events.out.tfevents.")
    return {str(f.relative_to(folder)): f.read_bytes() for f in found if not f.name.startswith(timed)}


def journal(folder: Path) -> set[str]:
    """The answers of all journals, without their seconds."""
    lines = [json.loads(line) for file in folder.rglob("journal*.jsonl") for line in file.read_text().splitlines()]
    return {json.dumps({key: value for key, value in line.items() if key != "seconds"}) for line in lines}


class Races:
    """Races in `place` between the commands, whose inputs and results alone are made there first."""

    def __init__(self, place: Path):
        self.place, self.commands = place, commands(place / "made")
        assert ended(forked(place, "made", lambda: prepare(place / "made"))) == 0, (place / "made.err").read_text()
        self.alone: dict[tuple[str, int], Path] = {}

    def solo(self, name: str, which: int) -> Path:
        """The folder of a command that nothing else disturbed."""
        if (name, which) not in self.alone:
            folder = self.place / f"alone-{name}-{which}"
            assert ended(forked(folder, "solo", lambda: self.commands[name](which))) == 0, (
                folder / "solo.err"
            ).read_text()
            self.alone[name, which] = folder / OUTPUT
        return self.alone[name, which]

    def race(self, first: str, second: str, wait: Callable[[], object]) -> tuple[str, str]:
        """How it ended ("one", "in turn", or "wrong"), and what there is to say of it; `wait` is between the starts."""
        runners = [(first, 0), (second, 1)]
        alone = [self.solo(*runner) for runner in runners]
        folder = self.place / "race"
        shutil.rmtree(folder, ignore_errors=True)
        processes = []
        for number, (name, which) in enumerate(runners):
            if number:
                wait()
            processes.append(forked(folder, f"{number}", lambda name=name, which=which: self.commands[name](which)))
        codes = [ended(process) for process in processes]
        errors = [(folder / f"{number}.err").read_text() for number in (0, 1)]
        told = f"{first} ended with {codes[0]}, {second} with {codes[1]}\n{errors[0]}\n{errors[1]}"
        found = files(folder / OUTPUT)
        same = [found == files(run) for run in alone]
        if sorted(codes) == [0, 2]:
            winner = codes.index(0)
            said = [line for line in errors[1 - winner].splitlines() if line.startswith("error: ")]
            told += f"\nfiles of the winner: {same[winner]}\n{_difference(found, files(alone[winner]))}"
            right = len(said) == 1 and any(refusal in said[0] for refusal in REFUSALS) and same[winner]
            right = right and "Traceback" not in errors[1 - winner] and OUTPUT in said[0]
            return ("one" if right and journal(folder / OUTPUT) == journal(alone[winner]) else "wrong"), told
        if codes == [0, 0]:
            answers = journal(alone[0]) | journal(alone[1])
            right = (
                any(same)
                and journal(folder / OUTPUT) == answers
                and first.replace("resume", "train") in (second.replace("resume", "train"))
            )
            return ("in turn" if right else "wrong"), told
        return "wrong", told


def _difference(found: dict[str, bytes], wanted: dict[str, bytes]) -> str:
    return ", ".join(name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name))


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """A folder, in memory where that can be, removed at the end."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        yield Path(folder)


def shown(name: str, counts: Counter[str]) -> str:
    """A line of the table."""
    return f"{name:<22}" + "".join(f"{counts[how]:>8}" for how in ("one", "in turn", "wrong"))


def main(times: int = 20, seed: int = 0, pairs: str = "") -> int:
    """Run the races and print a line a pair; how many ended wrongly."""
    chance, begun, wrongly = random.Random(seed), time.monotonic(), 0
    with place() as folder:
        races = Races(folder)
        chosen = [tuple(pair.split("+")) for pair in pairs.split(",") if pair]
        print(f"{'pair':<22}{'one':>8}{'in turn':>8}{'wrong':>8}")
        total: Counter[str] = Counter()
        for first, second in chosen or combinations_with_replacement(races.commands, 2):
            counts: Counter[str] = Counter()
            for number in range(times):
                order = (first, second) if number % 2 else (second, first)
                how, told = races.race(*order, lambda: time.sleep(chance.random() ** 3))
                counts[how] += 1
                if how == "wrong":
                    print(told)
            print(shown(f"{first} + {second}", counts), flush=True)
            total += counts
        print(shown("all", total))
        wrongly = total["wrong"]
    print(f"{total.total()} races in {time.monotonic() - begun:,.0f} s, seed {seed}")
    return wrongly


if __name__ == "__main__":
    torch.set_num_threads(1)
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    sys.exit(main(int(given.get("times", 20)), int(given.get("seed", 0)), given.get("pairs", "")) > 0)
