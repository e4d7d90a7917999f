"""However a command ends, one line says so: what a person can mend with exit code 2, a fault of the code with 1."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tale.cli import COMMANDS, guarded, main
from tale.errors import UserError
from tale.output.progress import progress
from tale.output.tables import Column, table_of
from tale.text import LOG, log_info, log_warning
from tests import ROOT
from tests.scripts import run_script


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tracebacks are kept here."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def raising(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("a.jsonl:3: cut off"), 2, "error: a.jsonl:3: cut off"),
        (OSError(errno.ENOENT, "No such file", "gone.txt"), 2, "error: gone.txt: No such file; finished results"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: the output, or a file: No space left on device"),
        (MemoryError(), 2, r"error: not enough memory \(MemoryError\); lower engine.batch_size"),
        (torch.OutOfMemoryError("CUDA out of memory"), 2, r"error: not enough memory \(CUDA out of memory\)"),
        (KeyError("x\x1b[2J\ny"), 1, r"unexpected KeyError at test_cli.py:\d+: 'x\\x1b\[2J\\ny'; this is a bug"),
        (RecursionError("too deep"), 1, r"unexpected RecursionError at test_cli.py:\d+: too deep"),
        (KeyboardInterrupt(), 130, "interrupted; the same command resumes"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_end_has_its_code_and_one_line(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        guarded(raising(error))
    assert end.value.code == code
    (said,) = capsys.readouterr().err.splitlines()
    assert re.match(line, said), said


def test_a_faults_traceback_is_in_the_file_that_its_line_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        guarded(raising(ZeroDivisionError("division by zero")))
    file = Path(capsys.readouterr().err.rpartition(" is in ")[2].strip())
    assert "    raise error\nZeroDivisionError: division by zero\n" in file.read_text()


@pytest.mark.parametrize(
    "work", [lambda: print("figures"), lambda: table_of("", "figures", {"a": Column("a")}, [{"a": "b"}]).show()]
)
@pytest.mark.parametrize(
    ("output", "code", "line"),
    [("full", 2, "error: the output, or a file: No space left on device"), ("unread", 141, "")],
)
def test_an_output_that_cannot_be_written_ends_the_command(
    output: str,
    code: int,
    line: str,
    work: Callable[[], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that nobody reads ends it quietly."""
    reader, writer = os.pipe()
    os.close(reader)
    with open("/dev/full" if output == "full" else writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(SystemExit) as end:
            guarded(work)
    assert end.value.code == code
    assert capsys.readouterr().err.partition(";")[0] == line


# --- What a run says ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "shown"), [("info", "a\nb\\x1b[2J\nc\n"), ("WARNING", "c\n"), ("error", "")])
def test_what_is_logged_goes_to_the_terminal_from_a_level_on(
    level: str, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TALE_LOG_LEVEL", level)

    def speaking() -> None:
        log_info("a", "b\x1b[2J")
        log_warning("c")

    guarded(speaking)
    assert capsys.readouterr().out == shown


def test_a_level_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TALE_LOG_LEVEL", "loud")
    with pytest.raises(SystemExit) as end:
        guarded(lambda: None)
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: TALE_LOG_LEVEL=loud: one of debug, info, warning, error\n"


def test_an_application_decides_what_the_package_logs(caplog: pytest.LogCaptureFixture) -> None:
    LOG.handlers, LOG.propagate = [], True
    with caplog.at_level("INFO", logger="tale"):
        log_info("said")
        log_warning("warned")
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [("INFO", "said"), ("WARNING", "warned")]


@pytest.mark.parametrize("terminal", [False, True])
def test_a_bar_in_a_file_is_drawn_once_a_minute(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """1,000 steps of 0.6 s, by a clock that each of them sets on: ten minutes; in a terminal each step is drawn."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    bar = progress("x", total=1000)
    clock = [bar.start_t]
    bar._time = lambda: clock[0]
    for _ in range(1000):
        clock[0] += 0.6
        bar.update()
    bar.close()
    drawn = capsys.readouterr().err.count("\r")
    assert drawn > 900 if terminal else 10 <= drawn <= 13


# --- The console command --------------------------------------------------------------------------------------------


def called(*words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of `tale …`."""
    monkeypatch.setattr(sys, "argv", ["tale", *words])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_tale_lists_its_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert called(monkeypatch=monkeypatch) == 0
    listed = re.findall(r"^  tale (\w+) ", capsys.readouterr().out, re.MULTILINE)
    assert listed == [*COMMANDS, "keys"]
    scripts = {file.stem for file in (ROOT / "scripts").glob("*.py")}
    assert scripts == {*COMMANDS, "demo"}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_its_script(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(name, "--help", monkeypatch=monkeypatch) == 0
    helped = capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit):
        run_script(ROOT / "scripts" / f"{name}.py")
    assert capsys.readouterr().out == helped.replace(f"tale {name}", f"python scripts/{name}.py")


def test_an_unknown_command_is_answered_by_the_nearest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called("serach", monkeypatch=monkeypatch) == 2
    assert capsys.readouterr().err == "error: tale serach: no such command. Did you mean 'search'?\n"


@pytest.mark.slow
def test_an_installed_wheel_works_in_another_folder(tmp_path: Path) -> None:
    """With its recipes, its page, its stories and its configs; without this checkout."""
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "runs", "__pycache__", "build", "*.egg-info"))
    shutil.copytree(ROOT / "tale" / "runs", source / "tale" / "runs", dirs_exist_ok=True)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    unpacked = tmp_path / "installed"
    shipped = {str(f.relative_to(unpacked)) for f in unpacked.glob("tale/**/*") if f.is_file()}
    kept = [f for f in (*ROOT.glob("tale/**/*"), *ROOT.glob("recipes/**/*.yaml")) if f.is_file() and f.suffix != ".pyc"]
    names = [str(f.relative_to(ROOT)) for f in kept]
    assert {name if name.startswith("tale/") else f"tale/{name}" for name in names} == shipped
    place = {"PYTHONPATH": str(tmp_path / "installed"), "OMP_NUM_THREADS": "1"}
    code = "import tale, sys; assert 'installed' in tale.__file__; from tale.cli import main; main()"
    command = [sys.executable, "-c", code, "train", "recipe=sft_llama8b", "plan=true", "plan_device=A100-80GB"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | place, capture_output=True, text=True, check=True)
    assert "fits A100-80GB" in done.stdout
