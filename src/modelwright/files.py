"""Files that survive a crash: written whole, flushed to the disk, and only then named.

A name that appears before its bytes are on the disk is how a crash leaves half a file behind.
So every helper flushes the bytes first and the directory that names them second.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path


def write_file(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write a new file and flush it to the disk; its directory is not flushed yet.

    Args:
        path: a name that does not exist yet.
        chunks: the content in order, each a flat buffer of bytes.

    Raises:
        OSError: the disk is full, the name exists, or the like; a partial file may remain.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest:  # one call may write less than it was given
                rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Give ``path`` a new content so that a crash leaves the old one or the new one, whole.

    Raises:
        OSError: the disk is full or the like; ``path`` is then unchanged.
    """
    fresh = path.with_name(path.name + ".tmp")
    fresh.unlink(missing_ok=True)
    try:
        write_file(fresh, [content])
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def rename(old: Path, new: Path) -> None:
    """Rename within one directory and flush that directory to the disk."""
    old.replace(new)
    sync_folder(new.parent)


def make_folder(path: Path) -> None:
    """Create a directory with its missing parents, each made known to the disk."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir()
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Flush a directory's list of names to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(path: Path) -> int:
    """Bytes an ordinary user may still write on the disk that holds the existing ``path``."""
    return shutil.disk_usage(path).free
