"""However a command ends, one line says so: what a person can mend with exit code 2, a fault of the code with 1."""

from __future__ import annotations

import errno
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tale.cli import guarded
from tale.errors import UserError
from tale.output.tables import show


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
        (OSError(errno.ENOENT, "No such file", "gone.txt"), 2, "error: gone.txt: No such file; what was finished"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: the output, or a file: No space left on device"),
        (MemoryError(), 2, r"error: not enough memory \(MemoryError\); lower engine.batch_size"),
        (torch.OutOfMemoryError("CUDA out of memory"), 2, r"error: not enough memory \(CUDA out of memory\)"),
        (KeyError("x\x1b[2J\ny"), 1, r"unexpected KeyError at test_cli.py:\d+: 'x\\x1b\[2J\\ny'; this is a fault"),
        (RecursionError("too deep"), 1, r"unexpected RecursionError at test_cli.py:\d+: too deep"),
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on"),
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


@pytest.mark.parametrize("work", [lambda: print("figures"), lambda: show("figures", ["a"], [["b"]])])
@pytest.mark.parametrize(
    ("output", "code", "line"),
    [("full", 2, "error: the output, or a file: No space left on device"), ("unread", 141, "")],
)
def test_an_output_that_cannot_be_written_ends_the_command_and_one_that_nobody_reads_quietly(
    output: str,
    code: int,
    line: str,
    work: Callable[[], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open("/dev/full" if output == "full" else writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(SystemExit) as end:
            guarded(work)
    assert end.value.code == code
    assert capsys.readouterr().err.partition(";")[0] == line
