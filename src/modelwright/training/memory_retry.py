"""Out of memory: the same work in smaller pieces, until a piece is one row.

Losses are sums over items (``Batch``), so a micro-batch cut in two gives the same step up to the
order of additions. What is not enough even for one row is said with the bytes that are there.
"""

from __future__ import annotations

import ctypes
import gc
import resource
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from modelwright import runtime
from modelwright.errors import MachineError
from modelwright.types import Array, Columns, rows_in, take

Result = TypeVar("Result")

# The CPU allocator of torch raises a plain RuntimeError; its words are all there is to know it by.
_WORDS = ("DefaultCPUAllocator", "can't allocate memory", "out of memory", "bad_alloc")

_C = ctypes.CDLL(None)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was short, on a GPU, in torch's CPU part or in Python."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


def release() -> None:
    """Give back what is no longer used: cycles that hold tensors, free pages, the GPU's blocks."""
    gc.collect()
    if hasattr(_C, "malloc_trim"):  # glibc keeps free pages between used ones
        _C.malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def halved(columns: Columns, times: int) -> list[Columns]:
    """The rows of a micro-batch in 2^``times`` pieces of nearly equal size, in their order."""
    total = rows_in(columns)
    return [take(columns, rows) for rows in pieces(np.arange(total), times)]


def pieces(rows: Array, times: int) -> list[Array]:
    """Rows cut in two ``times`` times; a piece has at least one row."""
    return np.array_split(rows, min(2**times, max(1, len(rows))))


def in_halves(columns: Columns, work: Callable[[Columns], Result]) -> list[Result]:
    """``work`` on all columns at once, or on halves of them as far as memory makes it needed.

    Raises:
        MachineError: one row is too much; says the bytes.
    """
    try:
        return [work(columns)]
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        why = str(error)
    release()
    if rows_in(columns) == 1:
        raise MachineError(too_much("one row", why))
    first, second = halved(columns, 1)
    return in_halves(first, work) + in_halves(second, work)


def too_much(what: str, why: str) -> str:
    """One line for the user: what does not fit, and the bytes there are."""
    said = " ".join(why.split())[:200] or "no memory left"
    return (
        f"out of memory with {what} a micro-batch ({said}); {_bytes()}; "
        "take a smaller model or context, or a machine with more memory"
    )


def _bytes() -> str:
    peak = runtime.peak_memory_bytes()
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return f"{peak:,} bytes were in use, {free:,} of {total:,} bytes of the GPU are free"
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    total = int(runtime.memory_gib() * 2**30)
    if limit != resource.RLIM_INFINITY:
        return f"{peak:,} bytes were in use, this process may address {limit:,} bytes"
    return f"{peak:,} bytes were in use, the machine has {total:,} bytes"
