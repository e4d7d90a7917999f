"""The C library's allocator: freed memory is kept for reuse."""

from __future__ import annotations

import ctypes
import os

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


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
    """Return glibc's freed memory to the system: between two phases whose blocks differ in size, it has holes."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
