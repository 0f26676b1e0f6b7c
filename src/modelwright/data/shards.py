"""Encoded examples on disk: one ``.npy`` file a field, memory-mapped when read.

A ragged field is ``NAME.values.npy`` and ``NAME.offsets.npy``; a fixed one is ``NAME.npy``.
Written to a temporary folder that takes its name when complete, so a reader never meets half.
A folder with ``corpus.json`` holds nothing itself: it names the token shards of a corpus.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from modelwright import files
from modelwright.data.token_shards import TokenShards
from modelwright.errors import CorruptError
from modelwright.types import Array, Column, Columns, Encoded, Ragged, rows_in

POINTER = "corpus.json"  # {"corpus": folder, "part": of the split, "shards": checksums}
_CHUNK = 1024  # examples joined at a time: bounds memory without many small writes


def write_shard(folder: Path, encoded: Iterable[Encoded], ragged: Sequence[str]) -> int:
    """Write examples as columns into ``folder`` (replaced if there); return how many."""
    fields: dict[str, list[Array]] = {}
    lengths: dict[str, list[int]] = {name: [] for name in ragged}
    pending: dict[str, list[Array]] = {}
    count = 0
    for example in encoded:
        for name, value in example.items():
            array = np.asarray(value)
            pending.setdefault(name, []).append(array)
            if name in lengths:
                lengths[name].append(len(array))
        count += 1
        if count % _CHUNK == 0:
            _join(pending, fields, lengths)
    _join(pending, fields, lengths)
    temporary = folder.with_name(folder.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    files.make_folder(temporary)
    for name, chunks in fields.items():
        values = np.concatenate(chunks)
        if name in lengths:
            _write(temporary / f"{name}.values.npy", values)
            offsets = np.concatenate([[0], np.cumsum(lengths[name])]).astype(np.int64)
            _write(temporary / f"{name}.offsets.npy", offsets)
        else:
            _write(temporary / f"{name}.npy", values)
    files.sync_folder(temporary)
    former = folder.with_name(folder.name + ".old")
    shutil.rmtree(former, ignore_errors=True)
    if folder.exists():
        folder.replace(former)  # deleted in place, a crash would leave some of its columns
    files.rename(temporary, folder)  # the name comes after all that it names is on the disk
    shutil.rmtree(former, ignore_errors=True)
    return count


def _write(path: Path, values: Array) -> None:
    try:
        with path.open("wb") as file:
            np.save(file, values, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno is not None:
            raise
        # numpy says "46392 requested and 6080 written" when the disk is full
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def _join(
    pending: dict[str, list[Array]], fields: dict[str, list[Array]], ragged: dict[str, list[int]]
) -> None:
    for name, arrays in pending.items():
        joined = np.concatenate(arrays) if name in ragged else np.stack(arrays)
        fields.setdefault(name, []).append(joined)
    pending.clear()


def open_shard(folder: Path) -> Columns:
    """The columns of a shard, memory-mapped and read-only."""
    if (folder / POINTER).is_file():
        return _corpus_columns(folder / POINTER)
    columns: dict[str, Column] = {}
    try:
        for path in sorted(folder.glob("*.npy")):
            name, _, part = path.name.removesuffix(".npy").partition(".")
            if part == "offsets":
                continue
            values = np.load(path, mmap_mode="r", allow_pickle=False)
            if part == "values":
                offsets = np.load(folder / f"{name}.offsets.npy", allow_pickle=False)
                if offsets[-1] != len(values):
                    raise ValueError(f"{len(values)} values, {offsets[-1]} expected")
                columns[name] = Ragged(values, offsets)
            else:
                columns[name] = values
    except (OSError, ValueError) as error:
        raise CorruptError(
            f"{folder}: the prepared data cannot be read ({error}); "
            "delete this folder and run `modelwright prepare` again"
        ) from error
    if not columns or len({rows_in({"": c}) for c in columns.values()}) != 1:
        raise CorruptError(
            f"{folder}: no prepared examples, or columns of different lengths; "
            "delete this folder and run `modelwright prepare` again"
        )
    return columns


def _corpus_columns(pointer: Path) -> Columns:
    """``tokens`` and ``learn`` of the token shards that a file names, which must be the same."""
    try:
        said = json.loads(pointer.read_bytes())
        shards = TokenShards(Path(said["corpus"]), said["part"])
        same = shards.checksums() == said["shards"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptError(
            f"{pointer}: cannot be read ({error}); delete it and run `modelwright prepare` again"
        ) from error
    if not same:
        raise CorruptError(
            f"{said['corpus']}: its tokens have changed since; run `modelwright prepare` again"
        )
    learn = cast(Array, shards.learn)  # as an array where training asks it to be one
    return {
        "tokens": Ragged(shards.tokens, shards.offsets),
        "learn": Ragged(learn, shards.offsets),
    }
