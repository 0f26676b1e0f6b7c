"""Lines that a corpus repeats: counted by hash in a first pass, cut out in a second.

Counting is exact in bounded memory: hashes are spread over files by their first bits, and the
files are counted one after another, so a corpus of any size needs the memory of one of them.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from modelwright.errors import ModelwrightError
from modelwright.files import replace_file
from modelwright.kernels.text_stats import Hashes

SHORTEST = 20  # characters; shorter lines repeat honestly: "else:", "Yes.", "第一章"
_BUCKETS = 256
_HELD = 1 << 20  # hashes held before they are written


def line_hash(line: str) -> int:
    """A hash of a line without white space at its ends, 64 bits."""
    content = line.strip().encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def hashes_of(text: str) -> Hashes:
    """The hashes of the lines of a text that count, each once: a row cannot outvote others."""
    lines = {line.strip() for line in text.split("\n")}
    return np.array([line_hash(line) for line in lines if len(line) >= SHORTEST], np.uint64)


def count(texts: Iterable[str], more_than: int, folder: Path) -> Hashes:
    """The lines that stand in more than ``more_than`` of the texts, sorted hashes.

    Args:
        texts: one pass is made.
        more_than: how many texts may share a line.
        folder: an empty folder for work; eight bytes a line are written there and deleted.
    """
    paths = [folder / f"{i:02x}" for i in range(_BUCKETS)]
    held: list[Hashes] = []
    size = 0
    for text in texts:
        hashes = hashes_of(text)
        held.append(hashes)
        size += len(hashes)
        if size >= _HELD:
            _spread(held, paths)
            held, size = [], 0
    _spread(held, paths)
    found = [np.zeros(0, np.uint64)]
    for path in paths:
        if path.exists():
            values, times = np.unique(np.fromfile(path, np.uint64), return_counts=True)
            found.append(values[times > more_than])
            path.unlink()
    return np.concatenate(found)


def _spread(held: list[Hashes], paths: list[Path]) -> None:
    if not held:
        return
    hashes = np.sort(np.concatenate(held))
    bounds = np.arange(1, _BUCKETS, dtype=np.uint64) << np.uint64(56)
    for part, path in zip(np.split(hashes, np.searchsorted(hashes, bounds)), paths, strict=True):
        if len(part):
            with path.open("ab") as stream:
                part.tofile(stream)


def save(lines: Hashes, path: Path) -> None:
    """Write the hashes of lines for the step ``substrings``."""
    content = io.BytesIO()
    np.save(content, lines)
    replace_file(path, content.getvalue())


def load(path: Path) -> frozenset[int]:
    """Read the hashes of lines.

    Raises:
        ModelwrightError: the file is missing or no such file.
    """
    try:
        lines = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise ModelwrightError(f"step substrings: lines: {path}: {error}") from None
    if not isinstance(lines, np.ndarray) or lines.dtype != np.uint64 or lines.ndim != 1:
        raise ModelwrightError(f"step substrings: lines: {path}: holds no hashes of lines")
    return frozenset(lines.tolist())


def without(text: str, lines: frozenset[int]) -> str:
    """The text without the lines of the set."""
    kept = [
        line
        for line in text.split("\n")
        if len(line.strip()) < SHORTEST or line_hash(line) not in lines
    ]
    return "\n".join(kept)
