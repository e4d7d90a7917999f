"""Calls in the background end with their block, and never keep an interpreter from its end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from tale.inference.openai.background import in_background

ABANDONED = """
import asyncio
from tale.inference.openai.background import in_background

def answers():
    with in_background(lambda: asyncio.sleep(600), print):
        yield 1
        yield 2

kept = answers()
for _ in kept:
    raise RuntimeError("of the consumer")
"""


def test_an_exception_beside_a_generator_ends_the_program() -> None:
    done = subprocess.run([sys.executable, "-c", ABANDONED], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("RuntimeError: of the consumer\n")


def test_the_block_gets_the_error_and_the_end_of_what_ran() -> None:
    ended = threading.Event()

    async def failing() -> None:
        raise ValueError("no")

    with in_background(failing, ended.set) as running, pytest.raises(ValueError, match="no"):
        running.result()
    assert ended.is_set()


def test_leaving_the_block_cancels_what_runs_and_waits_for_it() -> None:
    seen: list[str] = []
    begun = threading.Event()

    async def waiting() -> None:
        try:
            begun.set()
            await asyncio.sleep(600)
        finally:
            seen.append("cancelled")

    with in_background(waiting, lambda: seen.append("done")):
        assert begun.wait(5)
    assert seen == ["cancelled", "done"]
    assert not [thread for thread in threading.enumerate() if thread.name == "calls"]
