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
live = bytearray(b"x") * ({live} << 20)
malloc.release_freed_memory()
malloc.KEPT = {kept} << 20
began = resident()
blocks = [bytearray(b"x") * (1 << 20) for _ in range(100)]
blocks = blocks[9::10]
print(resident() - began)
malloc.limit_freed_memory()
print(resident() - began)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
@pytest.mark.parametrize(("kept", "live", "released"), [(80, 0, True), (120, 0, False), (80, 900, False)])
def test_freed_memory_is_kept_up_to_a_limit(kept: int, live: int, released: bool) -> None:
    """Of 100 blocks of 1 MiB every tenth stays; the holes between them are released above the limit.

    With 900 MiB in use the limit is an eighth of the process, over 112 MiB. Linux counts resident pages on each core
    and adds the counts up late: the same memory may be read as some pages more or less.
    """
    code = CODE.format(kept=kept, live=live)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    before, after = (int(line) / 2**20 for line in done.stdout.split())
    assert 95 < before < 115
    assert 5 < after < 30 if released else 95 < after < 115
