"""A search that is killed at any moment, and given again, is the search that was not; nothing is asked for twice."""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tale.config.recipes import load
from tale.search.recipe import SearchRecipe
from tale.search.run import run_search
from tests import fake_search
from tests.fake_search import call_of
from tests.tiny_search import answerable, command

pytestmark = pytest.mark.slow

Run = multiprocessing.Process
SAMPLING = pytest.mark.parametrize(("samples", "temperature"), [(1, 0.0), (3, 1.0)], ids=["greedy", "three samples"])


@pytest.fixture(scope="module")
def begun() -> Callable[..., Run]:
    """`begun(folder, samples, temperature)`: a search in a process of its own, forked from one that has no thread."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["__main__", "tale.search.solver", "tale.inference.journal"])

    def begin(*arguments: object) -> Run:
        process = processes.Process(target=fake_search.run, args=arguments)
        process.start()
        return process

    return begin


@pytest.fixture(scope="module")
def whole(begun: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, float], Path]:
    """The folder of the search that nobody kills."""
    folders: dict[int, Path] = {}

    def call(samples: int, temperature: float) -> Path:
        if samples not in folders:
            folders[samples] = tmp_path_factory.mktemp("whole")
            assert ended(begun(folders[samples], samples, temperature)) == 0
        return folders[samples]

    return call


def ended(process: Run) -> int | None:
    process.join(60)
    return process.exitcode


def size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def calls(folder: Path) -> Counter[str]:
    """How often each was really made."""
    file = folder / "calls.jsonl"
    return Counter(file.read_text().splitlines() if file.exists() else [])


def kept(folder: Path) -> set[str]:
    """The calls whose answers stand whole in the journal: in lines that have an end, after the first, its settings."""
    file = folder / "journal.jsonl"
    whole, _, _ = file.read_bytes().rpartition(b"\n") if file.exists() else (b"", b"", b"")
    return {json.dumps(call_of(json.loads(line)["text"])) for line in whole.split(b"\n")[1:]}


def drafts(folder: Path) -> list[Path]:
    return [*folder.glob(".records.jsonl.*")]


class Kills:
    """A folder whose search is killed again and again: what no kill may break is checked after each."""

    def __init__(self, folder: Path, whole: Path):
        self.folder, self.whole = folder, (whole / "records.jsonl").read_bytes()
        self.known: set[str] = set()
        self.before = calls(folder)
        self.journal: list[int] = []
        self.codes: list[int | None] = []

    def check(self, code: int | None) -> None:
        """A run has ended, with this exit code."""
        self.codes.append(code)
        made = calls(self.folder) - self.before
        again = {call: times for call, times in made.items() if call in self.known or times > 1}
        assert not again, f"asked again although it stood in the journal: {again}"
        lost = self.known - kept(self.folder)
        assert not lost, f"stood in the journal, and no more: {lost}"
        self.known, self.before = kept(self.folder), calls(self.folder)
        self.journal.append(len(self.known))
        records = self.folder / "records.jsonl"
        assert not records.exists() or records.read_bytes() == self.whole


@SAMPLING
def test_a_search_killed_at_twenty_moments_asks_nothing_twice(
    samples: int, temperature: float, begun: Callable[..., Run], whole: Callable[..., Path], tmp_path: Path
) -> None:
    """And is the uninterrupted one.

    Killed after as many calls as chance has it, or while it starts; a run that is done before is run once more.
    """
    arguments = (tmp_path, samples, temperature)
    kills = Kills(tmp_path, whole(samples, temperature))
    chance = random.Random(samples)
    total = sum(calls(whole(samples, temperature)).values())
    for number in range(20):
        # The calls of all runs together come to about what there is to ask; every fourth run has hardly begun.
        steps = 0 if number % 4 == 0 else chance.randint(1, total // 8)
        moment = chance.uniform(0, 0.06 if steps == 0 else 0.004)
        asked = sum(calls(tmp_path).values())
        process = begun(*arguments)
        while process.is_alive() and sum(calls(tmp_path).values()) < asked + steps:
            time.sleep(0.001)
        time.sleep(moment)
        process.kill()
        kills.check(ended(process))
    assert kills.codes.count(-signal.SIGKILL) >= 10
    assert len({*kills.journal}) >= 6  # the journal grew from one to the next
    kills.check(ended(begun(*arguments)))
    assert kills.codes[-1] == 0
    assert (tmp_path / "records.jsonl").read_bytes() == kills.whole
    # What a kill cut off between the call and the journal was asked for once more; nothing else was.
    made = calls(tmp_path)
    assert made.keys() == calls(whole(samples, temperature)).keys()
    assert sum(made.values()) - len(made) <= kills.codes.count(-signal.SIGKILL)


@pytest.mark.parametrize("dies", [moment for moment in fake_search.MOMENTS if moment])
@SAMPLING
def test_a_search_killed_at_the_worst_moment_is_the_whole_one(
    samples: int, temperature: float, dies: str, begun: Callable[..., Run], whole: Callable[..., Path], tmp_path: Path
) -> None:
    kills = Kills(tmp_path, whole(samples, temperature))
    kills.check(ended(begun(tmp_path, samples, temperature, dies)))
    there = (tmp_path / "records.jsonl").exists(), len(drafts(tmp_path)), bool(half_a_line(tmp_path))
    assert (
        there
        == {
            "in the middle of a line": (False, 1, True),
            "before the journal is synced": (False, 1, False),
            "before the records are there": (False, 1, False),
            "after the records are there": (True, 0, False),
        }[dies]
    )
    kills.check(ended(begun(tmp_path, samples, temperature)))
    assert kills.codes == [-signal.SIGKILL, 0]
    assert (tmp_path / "records.jsonl").read_bytes() == kills.whole
    assert kills.known == set(calls(whole(samples, temperature)))


def half_a_line(folder: Path) -> bytes:
    return (folder / "journal.jsonl").read_bytes().rpartition(b"\n")[2]


def test_a_killed_searchs_draft_is_not_taken_for_the_records(
    begun: Callable[..., Run], whole: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / ".records.jsonl.0123abcd.tmp").write_text('{"question": "half of ')
    (tmp_path / ".records.jsonl.tmp").write_text("[]\n")
    assert ended(begun(tmp_path, 1, 0.0)) == 0
    assert (tmp_path / "records.jsonl").read_bytes() == (whole(1, 0.0) / "records.jsonl").read_bytes()


def test_a_models_search_killed_at_random_is_the_whole_one(tiny_model_folder: Path, tmp_path: Path) -> None:
    """The real engine, float32: resumed batches are others, and no token differs."""
    given = answerable(tiny_model_folder, tmp_path, 16)
    run_search(load(SearchRecipe, [*given, f"output={tmp_path / 'whole'}"]))
    expected = (tmp_path / "whole" / "records.jsonl").read_bytes().splitlines()
    length = size(tmp_path / "whole" / "journal.jsonl")

    folder, chance = tmp_path / "killed", random.Random(0)
    arguments = [*given, f"output={folder}"]
    journal, lengths = folder / "journal.jsonl", []
    for share in (0.0, chance.uniform(0.05, 0.5), chance.uniform(0.5, 0.95)):
        with command(*arguments) as process:
            while process.poll() is None and size(journal) < share * length:
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 3) if share == 0 else chance.uniform(0, 0.02))
            process.kill()
        assert process.returncode == -signal.SIGKILL
        lengths.append(size(journal))
        assert not (folder / "records.jsonl").exists()
    assert lengths[0] < lengths[1] < lengths[2] < length
    with command(*arguments) as process:
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    found = (folder / "records.jsonl").read_bytes().splitlines()
    assert len(found) == len(expected)
    assert sum(a != b for a, b in zip(found, expected, strict=True)) == 0
    assert sum(bool(json.loads(line)["attempts"]) for line in found) >= 6  # budgets were searched, too
    assert drafts(folder) == []
    lines = journal.read_text().splitlines()
    assert len({json.loads(line)["key"] for line in lines[1:]}) == len(lines) - 1
