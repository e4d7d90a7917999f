"""What the process holds of the memory that it has freed."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from tests import ROOT

CODE = """
from tale.hardware.malloc import keep_freed_memory, release_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

keep_freed_memory()
blocks = [bytearray(b"x") * (4 << 20) for _ in range(100)]
blocks = blocks[9::10]
print(resident())
release_freed_memory()
print(resident())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_freed_memory_is_kept_until_it_is_released() -> None:
    """Of 100 blocks of 4 MiB every tenth stays: the holes between them are kept, then given back."""
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=True)
    kept, released = (int(line) / 2**20 for line in done.stdout.split())
    assert kept > 400
    assert 40 < released < 100
