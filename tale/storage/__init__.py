"""Atomic writes, strict JSON reading, and locked run folders."""
