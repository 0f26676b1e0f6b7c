"""The machine: device, precision, threads, seeds, and short measurements of its speed."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from modelwright.processor import cpu_name, peak_resident_bytes

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Machine:
    """What a run needs to know about where it runs; ``matmul_gflops`` by precision."""

    cpu: str
    cores: int
    memory_gib: float
    system: str
    python: str
    device: str
    matmul_gflops: dict[str, float]

    def to_dict(self) -> dict[str, object]:
        """Plain values, for the manifest."""
        return asdict(self)


def device() -> torch.device:
    """The accelerator when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def cores() -> int:
    """The cores this process may use; OMP_NUM_THREADS lowers them, as it does for torch."""
    able = hasattr(os, "sched_getaffinity")
    allowed = len(os.sched_getaffinity(0)) if able else os.cpu_count() or 1
    named = os.environ.get("OMP_NUM_THREADS", "")
    return min(allowed, int(named)) if named.isdecimal() and int(named) else allowed


def memory_gib() -> float:
    """Physical memory in GiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def free_memory_bytes() -> float:
    """What can be taken without swapping: free GPU memory, or what Linux calls available.

    Where neither is told, three quarters of the physical memory.
    """
    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[0])
    info = Path("/proc/meminfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return 0.75 * 2**30 * memory_gib()


def peak_memory_bytes() -> int:
    """The most memory this process has held: GPU memory on a GPU, resident set on a CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return peak_resident_bytes()


def matmul_gflops(precision: str, size: int = 1024, seconds: float = 0.4) -> float:
    """Best speed in GFLOP/s of a square matrix product: what this machine can when undisturbed."""
    at = device()
    a = torch.randn(size, size, device=at).to(PRECISIONS[precision])
    b = torch.randn(size, size, device=at).to(PRECISIONS[precision])
    times: list[float] = []
    end = time.perf_counter() + seconds
    torch.mm(a, b)
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        torch.mm(a, b)
        if at.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times) / 1e9


def measure_machine() -> Machine:
    """Describe this machine; takes about a second, once in a process."""
    return Machine(
        cpu=cpu_name(),
        cores=cores(),
        memory_gib=round(memory_gib(), 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        device=torch.cuda.get_device_name() if device().type == "cuda" else "cpu",
        matmul_gflops={p: _speed(p, torch.get_num_threads()) for p in precisions()},
    )


@functools.cache
def _speed(precision: str, threads: int) -> float:  # noqa: ARG001 - other threads, another speed
    return round(matmul_gflops(precision), 1)


def precisions() -> list[str]:
    """What this machine computes in; a CPU takes hundreds of times longer for float16."""
    return [p for p in PRECISIONS if p != "float16" or device().type != "cpu"]


def faster_precision(machine: Machine) -> str:
    """bfloat16 where its products run at least 1.3 times as fast as float32's; else float16 so."""
    speed = machine.matmul_gflops
    faster = (p for p in ("bfloat16", "float16") if speed.get(p, 0) >= 1.3 * speed["float32"])
    return next(faster, "float32")


def derived_seed(*parts: object) -> int:
    """A 63-bit seed that is a pure function of its parts: SHA-256 of their text."""
    text = "\x1f".join(str(p) for p in parts).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def seed_torch(seed: int, at: torch.device) -> None:
    """Seed the global generators that operators on the CPU and on ``at`` draw from.

    The same numbers as after ``torch.manual_seed``, which formats a stack trace at every call
    where CUDA is not in use: a fifth of a small model's step.
    """
    torch.default_generator.manual_seed(seed)
    if at.type == "cuda":
        torch.cuda.manual_seed_all(seed)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Use ``count`` threads for operators inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
