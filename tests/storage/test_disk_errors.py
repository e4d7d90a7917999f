"""A full disk, a folder that cannot be written, a journal in use: one clear error, nothing lost, and on it goes."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tale.cli import guarded
from tale.config.recipes import load
from tale.data.records import write_records
from tale.errors import UserError
from tale.inference import Sampling
from tale.models.base import BaseModel
from tale.search.recipe import SearchRecipe
from tale.search.run import run_search
from tale.search.solver import search
from tale.storage.files import AppendOnlyJsonl, write_atomic, write_jsonl_atomic
from tale.storage.folder import locked
from tests import ROOT
from tests.fake_search import QUESTIONS, RandomEngine, call_of, run

COMMAND = [sys.executable, "-m", "tests.fake_search"]
GREEDY = ["1", "0"]
NO_ROOM = "Nothing written before is lost: free disk space, or choose another output, and run the same command again"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The records of the fake search at temperature 0, without any journal."""
    folder = tmp_path_factory.mktemp("expected")
    write_records(folder / "r", search(QUESTIONS, RandomEngine(folder / "calls"), Sampling(512)))
    return (folder / "r").read_bytes()


def answers(journal: bytes) -> dict[str, str]:
    """Each journalled call with its text; every line is whole."""
    assert journal.endswith(b"\n")
    settings, *lines = map(json.loads, journal.splitlines())
    assert settings == {"name": "drawn"}
    found = {json.dumps(call_of(line["text"])): line["text"] for line in lines}
    assert len(found) == len(lines)
    return found


def made(folder: Path) -> list[str]:
    return (folder / "calls.jsonl").read_text().splitlines()


def failed(done: subprocess.CompletedProcess[str], file: Path, reason: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines() == [f"error: {file}: cannot be written ({reason}). {NO_ROOM}"]


# --- Full -----------------------------------------------------------------------------------------------------------


def limited(folder: Path, size: int) -> subprocess.CompletedProcess[str]:
    """The search where no file may grow beyond `size`: a write that goes there stops short, the next one fails."""
    return subprocess.run(
        [*COMMAND, str(folder), *GREEDY],
        cwd=ROOT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("size", [3, 20_011, 20_012, 50_000])
def test_no_room_for_the_journal(size: int, expected: bytes, tmp_path: Path) -> None:
    """Whether a line, the first included, or none is cut: only whole ones are kept, and asked for no more."""
    failed(limited(tmp_path, size), tmp_path / "journal.jsonl", "File too large")
    journal = (tmp_path / "journal.jsonl").read_bytes()
    before = answers(journal) if journal else {}
    assert size - 1500 < len(journal) <= size or (size, journal) == (3, b"")
    asked = made(tmp_path) if journal else []
    assert len(asked) == len(before) + bool(journal)  # the one for which there was no room
    run(tmp_path, 1, 0.0)
    assert (tmp_path / "records.jsonl").read_bytes() == expected
    assert (tmp_path / "journal.jsonl").read_bytes().startswith(journal)
    assert not before.keys() & {*made(tmp_path)[len(asked) :]}
    assert [*tmp_path.glob(".*")] == []


def test_no_room_for_the_records(expected: bytes, tmp_path: Path) -> None:
    """The answers are all there, an older file is too, and the same command asks for none again."""
    run(tmp_path, 1, 0.0)
    journal, asked = (tmp_path / "journal.jsonl").read_bytes(), made(tmp_path)
    (tmp_path / "records.jsonl").write_text("older\n")
    failed(limited(tmp_path, len(expected) // 2), tmp_path / "records.jsonl", "File too large")
    assert (tmp_path / "journal.jsonl").read_bytes() == journal
    assert (tmp_path / "records.jsonl").read_text() == "older\n"
    assert [*tmp_path.glob(".*")] == []
    run(tmp_path, 1, 0.0)
    assert (tmp_path / "records.jsonl").read_bytes() == expected
    assert made(tmp_path) == asked


# In namespaces of its own, where anybody may mount: a disk of 400 kB, filled up, emptied, at last read-only.
ON_A_SMALL_DISK = """
set -e
mkdir "$1/disk"; mount -t tmpfs -o size=400k none "$1/disk"; mkdir "$1/disk/run"
search() { code=0; $SEARCH "$1/disk/run" 1 0 2>"$1/error.$2" || code=$?; echo $code >"$1/code.$2"; }
keep() { cp -R "$1/disk/run" "$1/run.$2"; }
fill() { head -c "$2" /dev/zero >"$1/disk/filler"; }
fill "$1" $((400 * 1024 - 40 * 1024)); search "$1" journal; keep "$1" journal
rm "$1/disk/filler"; search "$1" room; keep "$1" room
rm "$1/disk/run/records.jsonl"; head -c 1000000 /dev/zero >"$1/disk/filler" 2>/dev/null || true
truncate -s -40k "$1/disk/filler"; search "$1" records; keep "$1" records
rm "$1/disk/filler"; search "$1" again; keep "$1" again
mount -o remount,ro "$1/disk"; search "$1" readonly
"""


@pytest.mark.slow
def test_a_disk_that_is_really_full(expected: bytes, tmp_path: Path) -> None:
    alone = ["unshare", "--user", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("no namespaces here in which to mount a small disk")
    environment = os.environ | {"SEARCH": " ".join(COMMAND)}
    done = subprocess.run(
        [*alone, "bash", "-c", ON_A_SMALL_DISK, "bash", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    if "mount:" in done.stderr:
        pytest.skip(f"no small disk can be mounted here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    said = {file.suffix[1:]: (tmp_path / f"error{file.suffix}").read_text() for file in tmp_path.glob("code.*")}
    codes = {name: int((tmp_path / f"code.{name}").read_text()) for name in said}
    assert codes == {"journal": 2, "room": 0, "records": 2, "again": 0, "readonly": 2}
    run_ = tmp_path / "disk" / "run"
    # Both files grow while it searches, the records as questions are done: either may be the first to fail.
    assert said["journal"] in [
        f"error: {run_}/{file}.jsonl: cannot be written (No space left on device). {NO_ROOM}\n"
        for file in ("journal", "records")
    ]
    assert said["records"] == f"error: {run_}/records.jsonl: cannot be written (No space left on device). {NO_ROOM}\n"
    assert said["readonly"] == f"error: {run_}/records.jsonl: cannot be written (Read-only file system). {NO_ROOM}\n"

    journals = {name: (tmp_path / f"run.{name}" / "journal.jsonl").read_bytes() for name in codes if name != "readonly"}
    assert 5_000 < len(journals["journal"]) < 41_000
    assert not (tmp_path / "run.journal" / "records.jsonl").exists()
    before = answers(journals["journal"])
    assert journals["room"].startswith(journals["journal"])
    assert journals["room"] == journals["records"] == journals["again"]
    for name in ("room", "again"):
        assert (tmp_path / f"run.{name}" / "records.jsonl").read_bytes() == expected
    assert [*(tmp_path / "run.records").glob("*records*")] == []
    asked = {name: made(tmp_path / f"run.{name}") for name in journals}
    assert not before.keys() & {*asked["room"][len(asked["journal"]) :]}
    assert asked["again"] == asked["records"] == asked["room"]


@pytest.mark.parametrize("write", [write_atomic, write_jsonl_atomic])
def test_a_file_for_which_there_is_no_room_stays_what_it_was(write: Callable, tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_atomic(file, "old\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(UserError, match=r"file: cannot be written \(File too large\)\. Nothing written before is"):
            write(file, "x" * 200_000 if write is write_atomic else ({"row": i} for i in range(50_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("file", "old\n")]


def test_an_error_while_making_rows_is_not_the_disks(tmp_path: Path) -> None:
    """A model is loaded, and an endpoint asked, while records are written."""
    lost = ConnectionResetError(104, "Connection reset by peer")

    def rows() -> Iterator[dict]:
        yield {"row": 1}
        raise lost

    write_atomic(tmp_path / "file", "old\n")
    with pytest.raises(ConnectionResetError) as error:
        write_jsonl_atomic(tmp_path / "file", rows())
    assert error.value is lost
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("file", "old\n")]


# --- Not to be written at all ---------------------------------------------------------------------------------------


@pytest.fixture
def unloaded(tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable:
    """`unloaded(output)` searches there, and no weights may be loaded; its one line of error."""
    monkeypatch.setattr(BaseModel, "load", lambda *_, **__: pytest.fail("a model was loaded before the folder"))

    def call(output: Path, *given: str) -> str:
        recipe = load(
            SearchRecipe, ["recipe=tiny/search", f"model.name_or_path={tiny_model_folder}", f"output={output}", *given]
        )
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            guarded(lambda: run_search(recipe))
        assert end.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return call


@pytest.mark.parametrize("given", [[], ["shard=2/3"]])
def test_an_output_below_a_file(given: list[str], unloaded: Callable, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine\n")
    line = unloaded(tmp_path / "file" / "run", *given)
    folder = tmp_path / "file" / "run" / ("shard-2-of-3" if given else "")
    assert line == f"error: {folder}: cannot be written (Not a directory). {NO_ROOM}"
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("file", "mine\n")]


def test_an_output_that_is_a_file(unloaded: Callable, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine\n")
    assert unloaded(tmp_path / "run") == f"error: {tmp_path / 'run'}: cannot be written (File exists). {NO_ROOM}"
    assert (tmp_path / "run").read_text() == "mine\n"


def test_a_folder_that_may_only_be_read(unloaded: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):
        pytest.skip("permissions do not bind this user")
    line = f"error: {folder}: cannot be written (Permission denied). {NO_ROOM}"
    assert unloaded(folder) == line


# --- In use ---------------------------------------------------------------------------------------------------------

HOLDS = "import sys, pathlib; from tale.storage.folder import locked; folder = pathlib.Path(sys.argv[1])\n"


def test_a_folder_that_another_process_writes_stays_unchanged(
    unloaded: Callable, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its recipe is that of the process that writes, not of the one that is refused."""
    (tmp_path / "recipe.yaml").write_text("of the other\n")
    (tmp_path / "records.jsonl").write_text("of the other\n")
    waits = [sys.executable, "-c", f"{HOLDS}with locked(folder): print('held', flush=True); sys.stdin.read()"]
    waits += [str(tmp_path)]
    with subprocess.Popen(waits, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        before = {file: file.read_bytes() for file in tmp_path.iterdir()}
        advice = "wait until it ends, or choose another output"
        assert unloaded(tmp_path) == f"error: {tmp_path}: another process is writing there; {advice}"
        assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
        other.stdin.close()
        other.wait()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["recipe.yaml", "records.jsonl"]
    monkeypatch.undo()
    given = ["recipe=tiny/search", f"model.name_or_path={tiny_model_folder}", f"output={tmp_path}", "task.limit=2"]
    assert len(run_search(load(SearchRecipe, given)).read_text().splitlines()) == 2


def test_another_models_journal_changes_nothing_of_its_run(unloaded: Callable, tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text('{"name": "another model"}\n')
    (tmp_path / "run.json").write_text('{"kind": "search"}\n')
    (tmp_path / "records.jsonl").write_text("of the other\n")
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    assert unloaded(tmp_path).startswith(f"error: {tmp_path / 'journal.jsonl'}: written with {{'name': 'another model'")
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    dies = f"{HOLDS}with locked(folder): import os; os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", dies, str(tmp_path)]).returncode == -9
    assert [file.name for file in tmp_path.iterdir()] == [".lock"]
    with locked(tmp_path):
        (tmp_path / "mine").touch()
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_half_a_line_stands_until_the_next_is_written(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(b'{"whole": 1}\n{half')
    file = AppendOnlyJsonl(journal)
    assert [line for _, line in file] == [b'{"whole": 1}\n']
    assert journal.read_bytes() == b'{"whole": 1}\n{half'
    assert file.read(file.append({"next": 2})) == b'{"next": 2}\n'
    assert journal.read_bytes() == b'{"whole": 1}\n{"next": 2}\n'
