"""Devices: memory, and dense peak FLOP/s by dtype, from NVIDIA's data sheets."""

from __future__ import annotations

import os
import re
import resource
import sys
import time
from dataclasses import dataclass, field
from functools import cache

import torch

from tale.errors import UserError

GB = 10**9


@dataclass(frozen=True)
class Device:
    """Memory in bytes, and peak FLOP/s of dense matrix products by dtype, if known."""

    name: str
    memory: int
    peak: dict[str, float] = field(default_factory=dict)
    gpu: bool = True


def _gpu(name: str, gigabytes: int, bfloat16: float, float32: float) -> Device:
    """Peaks in TFLOP/s, without sparsity, accumulated in float32."""
    return Device(name, gigabytes * GB, {"bfloat16": bfloat16 * 1e12, "float32": float32 * 1e12})


# Data sheets of the products; of consumer cards, the architecture's white paper. float32 without TF32.
GPUS = [
    _gpu("RTX3090", 24, 71, 35.6),
    _gpu("RTX4090", 24, 165.2, 82.6),
    _gpu("A10", 24, 125, 31.2),
    _gpu("L4", 24, 121, 30.3),
    _gpu("L40S", 48, 362, 91.6),
    _gpu("A100-40GB", 40, 312, 19.5),
    _gpu("A100-80GB", 80, 312, 19.5),
    _gpu("H100-80GB", 80, 989, 67),
    _gpu("H200", 141, 989, 67),
]
THIS_MACHINE = "this machine"


def device_named(name: str, accelerator: str = "auto", processes: int = 1) -> Device:
    """The device of this name: one of `GPUS`, a GPU by its memory ("24GB"), or this machine's.

    On a CPU its `processes` share the memory.

    Raises:
        UserError: no such name.
    """
    if name == THIS_MACHINE:
        return this_machine(accelerator, processes)
    if size := re.fullmatch(r"(\d+) ?GB", name, re.IGNORECASE):
        return Device(name, int(size[1]) * GB)
    found = next((gpu for gpu in GPUS if _plain(gpu.name) == _plain(name)), None)
    if found is None:
        known = ", ".join(gpu.name for gpu in GPUS)
        raise UserError(f"plan_device={name}: one of {THIS_MACHINE}, {known}, or a size such as 24GB")
    return found


def this_machine(accelerator: str = "auto", processes: int = 1) -> Device:
    """The GPU that training would use, else the machine's memory, divided by the number of processes."""
    if accelerator in ("auto", "cuda", "gpu") and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        return Device(properties.name, properties.total_memory, _peaks(properties.name, properties.total_memory))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // processes
    return Device(
        f"{THIS_MACHINE}'s memory" + (f" / {processes} processes" if processes > 1 else ""), memory, gpu=False
    )


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """Peak FLOP/s: a GPU's from the table (None if unknown), a CPU's measured by a matrix product."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return _peaks(properties.name, properties.total_memory).get(str(dtype).removeprefix("torch."))
    return _measured(dtype) if device.type == "cpu" else None


def peak_memory(device: torch.device) -> int:
    """Peak bytes of CUDA's allocator, or of the process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def fast_dtype() -> str:
    """bfloat16 if the device supports it in hardware, else float32 (emulation is far slower)."""
    if torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif torch.accelerator.is_available():
        fast = True
    else:
        has = torch.cpu.get_capabilities()
        fast = any(has.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))
    return "bfloat16" if fast else "float32"


@cache
def _measured(dtype: torch.dtype, size: int = 1024, rounds: int = 3) -> float:
    """FLOP/s of the fastest of a few square products: 2 · size³ each."""
    left, right = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
    fastest = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        left @ right
        fastest = min(fastest, time.perf_counter() - began)
    return 2 * size**3 / fastest


def _peaks(name: str, memory: int) -> dict[str, float]:
    """The peaks of the GPU whose model is in the driver's name ("NVIDIA A100-SXM4-80GB") and memory is nearest."""
    words = re.findall(r"[a-z]+\d+\w*|\w+", name.lower().replace("rtx ", "rtx"))
    fitting = [gpu for gpu in GPUS if gpu.name.lower().split("-")[0] in words]
    return min(fitting, key=lambda gpu: abs(gpu.memory - memory)).peak if fitting else {}


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name.lower())
