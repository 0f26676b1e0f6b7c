"""Lines that a corpus repeats: counted by hash in a first pass, cut out in a second.

Counting is exact in bounded memory: hashes are spread over files by their first bits, and the
files are counted one after another, so a corpus of any size needs the memory of one of them.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modelwright.errors import ModelwrightError
from modelwright.files import replace_file
from modelwright.kernels.text_stats import Hashes

SHORTEST = 20  # characters; shorter lines repeat honestly: "else:", "Yes.", "第一章"
BUCKETS = 256
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
    found = [values[times > more_than] for values, times in tally(texts, folder)]
    return np.concatenate([np.zeros(0, np.uint64), *found])


def tally(texts: Iterable[str], folder: Path) -> Iterator[tuple[Hashes, NDArray[np.int64]]]:
    """In how many of the texts each line stands, in parts: the hashes by their first 8 bits.

    Args:
        texts: one pass is made.
        folder: see ``count``.

    Yields:
        BUCKETS times: hashes, ascending over all parts, and how many texts have each.
    """
    paths = [folder / f"{i:02x}" for i in range(BUCKETS)]
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
    for path in paths:
        hashes = np.fromfile(path, np.uint64) if path.exists() else np.zeros(0, np.uint64)
        path.unlink(missing_ok=True)
        yield np.unique(hashes, return_counts=True)


def _spread(held: list[Hashes], paths: list[Path]) -> None:
    if not held:
        return
    hashes = np.sort(np.concatenate(held))
    bounds = np.arange(1, BUCKETS, dtype=np.uint64) << np.uint64(56)
    for part, path in zip(np.split(hashes, np.searchsorted(hashes, bounds)), paths, strict=True):
        if len(part):
            with path.open("ab") as stream:
                part.tofile(stream)


def save(lines: Hashes, path: Path) -> None:
    """Write the hashes of lines for the step ``substrings``."""
    content = io.BytesIO()
    np.save(content, lines)
    replace_file(path, content.getvalue())


def load(path: Path) -> Hashes:
    """Read the hashes of lines, ascending.

    Raises:
        ModelwrightError: the file is missing or no such file.
    """
    try:
        lines = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise ModelwrightError(f"step substrings: lines: {path}: {error}") from None
    if not isinstance(lines, np.ndarray) or lines.dtype != np.uint64 or lines.ndim != 1:
        raise ModelwrightError(f"step substrings: lines: {path}: holds no hashes of lines")
    return np.sort(lines)


def without(text: str, lines: Hashes) -> str:
    """The text without the lines whose hashes are among ``lines``, which are ascending."""
    if not len(lines):
        return text
    all_ = text.split("\n")
    long = [i for i, line in enumerate(all_) if len(line.strip()) >= SHORTEST]
    hashes = np.array([line_hash(all_[i]) for i in long], np.uint64)
    at = np.searchsorted(lines, hashes).clip(max=len(lines) - 1)
    gone = {long[i] for i in np.flatnonzero(lines[at] == hashes).tolist()}
    return "\n".join(line for i, line in enumerate(all_) if i not in gone) if gone else text
