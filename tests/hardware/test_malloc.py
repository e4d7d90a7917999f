"""What the process holds of the memory that it has freed."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from tests import ROOT

CODE = """
from tale.hardware import malloc

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

malloc.keep_freed_memory()
malloc.release_freed_memory()
malloc.KEPT = {kept} << 20
blocks = [bytearray(b"x") * (4 << 20) for _ in range(100)]
blocks = blocks[9::10]
print(resident())
malloc.limit_freed_memory()
print(resident())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
@pytest.mark.parametrize("kept", [300, 500])
def test_freed_memory_is_kept_up_to_a_limit(kept: int) -> None:
    """Of 100 blocks of 4 MiB every tenth stays: the holes between them are kept, or given back above the limit."""
    code = CODE.format(kept=kept)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    before, after = (int(line) / 2**20 for line in done.stdout.split())
    assert before > 400
    assert (40 < after < 100) if kept < 400 else after == before
