"""Tensors on disk: their hash, and whether they are finite and those that an architecture needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tale.errors import UserError


def tensor_files(files: Iterable[Path], remedy: str = "fetch it again") -> dict[str, Path]:
    """The file of every tensor, by the tensor's name.

    Raises:
        UserError: a file is damaged.
    """
    found: dict[str, Path] = {}
    for file in sorted(files):
        try:
            with safe_open(file, framework="pt") as tensors:
                found |= dict.fromkeys(tensors.keys(), file)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file}: damaged ({error}); {remedy}") from error
    return found


def hash_tensors(found: Mapping[str, Path]) -> str:
    """Hash of every tensor's name, shape, dtype and bytes; file names and sharding do not matter.

    Raises:
        UserError: a tensor has NaN or infinite numbers.
    """
    digest = hashlib.sha256()
    for name in sorted(found):
        with safe_open(found[name], framework="pt") as tensors:
            tensor = tensors.get_tensor(name).contiguous()
        if not is_finite(tensor):
            raise UserError(f"{found[name]}: {name} holds NaN or infinite numbers; fetch it again")
        digest.update(json.dumps([name, list(tensor.shape), str(tensor.dtype)]).encode())
        digest.update(tensor.view(torch.uint8).numpy() if tensor.ndim else tensor.reshape(1).view(torch.uint8).numpy())
    return digest.hexdigest()


def is_finite(tensor: Tensor) -> bool:
    """Whether it has neither NaN nor infinities, checked by its sum, which takes a tenth of the time of its hash."""
    if not tensor.is_floating_point():
        return True
    wide = tensor if tensor.element_size() > 1 else tensor.float()  # torch cannot sum 8-bit floats
    return bool(wide.sum(dtype=torch.float32).isfinite() or wide.isfinite().all())


def first_difference(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], same_dtype: bool = False) -> str | None:
    """The first difference of the tensors found to those wanted, which may be on "meta"; None if there is none."""
    for name in sorted(found.keys() | wanted.keys()):
        if name not in found:
            return f"{name} is missing"
        if name not in wanted:
            return f"{name} is unexpected"
        mine, theirs = found[name], wanted[name]
        if mine.shape != theirs.shape:
            return f"{name} is {_shape(mine)}, wanted: {_shape(theirs)}"
        if mine.dtype != theirs.dtype if same_dtype else not mine.is_floating_point():
            return f"{name} is in {mine.dtype}, wanted: {theirs.dtype}".replace("torch.", "")
        if not is_finite(mine):
            return f"{name} holds NaN or infinite numbers"
    return None


def _shape(tensor: Tensor) -> str:
    return " × ".join(map(str, tensor.shape)) or "a single number"
