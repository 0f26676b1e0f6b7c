"""Reading safetensors files tensor by tensor, with little memory beside what is read.

The header is checked against the file before anything is mapped: a file that is cut short, or
whose table does not cover its bytes exactly, is refused. Pages are handed back to the system as
soon as they are copied, so a file of any size takes a few MiB beside the tensors themselves.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelwright.checkpoint.layout import DTYPES
from modelwright.errors import CorruptError, ModelwrightError

HEADER = 100 << 20  # bytes of a header at most, the limit of the safetensors format
CHUNK = 16 << 20  # bytes copied before their pages are handed back
_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: its type, shape, and the bytes from ``begin`` to ``end``."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def table(path: Path) -> dict[str, Stored]:
    """Name -> place of all tensors of a safetensors file.

    Source: the safetensors format: 8 bytes length of the header (little endian), the header in
    JSON, then the data, which the tensors cover without gap or overlap.

    Raises:
        CorruptError: the file is cut short, too long, or its header is damaged.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        first = stream.read(max(8, len(_POINTER)))
        if first.startswith(_POINTER):
            raise CorruptError(
                f"{path}: is a pointer of git-lfs and not the weights; fetch them with "
                "`git lfs pull`, or give hub:OWNER/NAME"
            )
        length = struct.unpack("<Q", first[:8])[0] if len(first) >= 8 else size
        if length > min(HEADER, size - 8):
            raise CorruptError(
                f"{path}: is cut short or damaged: its header claims {length:,} bytes of a file of "
                f"{size:,}; get the file again"
            )
        stream.seek(8)
        header = stream.read(length)
    try:
        entries = json.loads(header)
        entries.pop("__metadata__", None)
        found = {name: _stored(path, 8 + length, entry) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        line = " ".join(str(error).split())[:100]
        raise CorruptError(f"{path}: its header is damaged ({line}); get the file again") from error
    at = 8 + length
    for name, one in sorted(found.items(), key=lambda item: (item[1].begin, item[1].end)):
        if one.begin != at:
            raise CorruptError(
                f"{path}: its header is damaged: {name!r} begins at byte {one.begin:,}, "
                f"{at:,} is meant; get the file again"
            )
        at = one.end
    if at != size:
        what = "is cut short" if size < at else "is too long"
        raise CorruptError(
            f"{path}: {what}: {at:,} bytes are meant, {size:,} are there; get the file again"
        )
    return found


def _stored(path: Path, base: int, entry: dict[str, Any]) -> Stored:
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
        raise ValueError("a shape or offset is no number")
    dtype = DTYPES[entry["dtype"]]
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{end - begin} bytes for the shape {list(shape)}")
    return Stored(path, dtype, shape, base + begin, base + end)


class Reader:
    """The mapped files of a checkpoint; use it in a ``with`` block."""

    def __init__(self) -> None:
        self._maps: dict[Path, mmap.mmap] = {}

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        for mapped in self._maps.values():
            mapped.close()

    def rows(self, stored: Stored, put: Callable[[int, Tensor], None]) -> None:
        """Give a tensor in parts along its first axis: ``put(first row, rows)``.

        The rows are valid during the call only: afterwards their pages are handed back.

        Raises:
            ModelwrightError: the file has changed meanwhile.
        """
        if stored.begin == stored.end:
            put(0, torch.empty(stored.shape, dtype=stored.dtype))
            return
        mapped = self._map(stored)
        shape = stored.shape or (1,)
        row = (stored.end - stored.begin) // shape[0]
        step = max(1, CHUNK // row)
        for first in range(0, shape[0], step):
            count = min(step, shape[0] - first)
            begin = stored.begin + first * row
            # bytearray-like writable copy-on-write pages, of which none is ever written
            flat = torch.frombuffer(mapped, dtype=torch.uint8, count=count * row, offset=begin)
            if begin % stored.dtype.itemsize:
                flat = flat.clone()  # a header of odd length: torch reads aligned memory only
            part = flat.view(stored.dtype).view(count, *shape[1:])
            put(first, part if stored.shape else part[0])
            del flat, part
            low = begin - begin % mmap.PAGESIZE
            mapped.madvise(mmap.MADV_DONTNEED, low, begin + count * row - low)

    def _map(self, stored: Stored) -> mmap.mmap:
        found = self._maps.get(stored.file)
        if found is None:
            with stored.file.open("rb") as stream:
                found = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
            self._maps[stored.file] = found
        if len(found) < stored.end:
            raise ModelwrightError(f"{stored.file}: was changed while it was read; try again")
        return found
