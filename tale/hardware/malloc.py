"""The C library's allocator: freed memory is kept for reuse, up to a limit."""

from __future__ import annotations

import ctypes
import os

import psutil

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT = 2**29  # bytes by which a process may grow before its freed memory is released; in a large one an eighth

_released = 0  # the process's resident bytes when its freed memory was last released


def keep_freed_memory() -> None:
    """Make glibc reuse freed memory instead of returning it to the system, unless the environment configures malloc.

    By default each large tensor gets new pages, which the system must clear: 10 to 15 % of the time on a CPU.
    """
    chosen = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")) for name in os.environ)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt and not chosen:
        mallopt(MMAP_THRESHOLD, 2**30)
        mallopt(TRIM_THRESHOLD, 2**31 - 1)


def release_freed_memory() -> None:
    """Return glibc's freed memory to the system, as between two phases whose blocks differ in size."""
    global _released
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    _released = psutil.Process().memory_info().rss


def limit_freed_memory() -> None:
    """Release freed memory if, since it last was, the process has grown by `KEPT` or an eighth, whichever is more.

    Blocks of many sizes, as of a batch whose rows come and go or of weights dequantised for a product, leave holes that
    none fits into: a run of hours would grow without an end. A layer of a large model uses and frees less than an
    eighth; with less kept, the memory would be released and cleared again at each layer. Takes 0.1 ms if none is
    released.
    """
    if psutil.Process().memory_info().rss > _released + max(KEPT, _released // 8):
        release_freed_memory()
