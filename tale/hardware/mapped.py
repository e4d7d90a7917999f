"""Mapped checkpoint files: their pages are returned to the system once the weights are copied."""

from __future__ import annotations

import ctypes
import sys

import psutil

MADV_DONTNEED = 4  # of Linux's mman.h


def release_mapped_weights() -> None:
    """Return the resident pages of mapped safetensors files to the system, as after their weights were copied.

    transformers maps a file: weights of the type that is loaded stay in it, and it is mapped until the last is gone.
    Linux reads a page again where a weight that is still used needs it. A mapping that was written to, as by merging an
    adapter, is kept, because only its unchanged pages are in the file.
    """
    if sys.platform != "linux":
        return
    for part in psutil.Process().memory_maps(grouped=False):
        if part.path.endswith(".safetensors") and part.rss and not part.anonymous and not part.swap:
            start, end = (int(address, 16) for address in part.addr.split("-"))
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_DONTNEED)
