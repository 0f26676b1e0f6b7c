"""Evaluation sets as an index of n-grams, made once and kept in the user's cache."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.data.archive import opened
from modelwright.data.grams import MOST_NAMES, GramIndex, folded_words
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.files import rename, write_file
from modelwright.kernels.text_stats import Hashes

_VERSION = 1
_PACKED = (".gz", ".xz", ".bz2", ".zst")


def texts_of(path: Path) -> Iterator[str]:
    """Every text of an evaluation set: all strings of its rows, whatever their fields are called.

    Reads JSON lines, JSON, CSV, TSV and Parquet, plain or packed; any other file by lines; of a
    folder all files.

    Raises:
        ModelwrightError: the path is missing or a file is not what its name says.
    """
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            yield from texts_of(file)
        return
    try:
        yield from _texts_of_file(path)
    except (OSError, EOFError, UnicodeDecodeError, ValueError, csv.Error) as error:
        line = " ".join(str(error).split())[:150]
        raise ModelwrightError(f"{path}: cannot be read as an evaluation set: {line}") from None


def _texts_of_file(path: Path) -> Iterator[str]:
    plain = path.with_suffix("") if path.suffix.lower() in _PACKED else path
    kind = plain.suffix.lower()
    if kind == ".parquet":
        from modelwright.data.corpus.records import rows  # noqa: PLC0415 - loads pyarrow

        for row in rows(path):
            yield from _strings(row)
        return
    with opened(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        if kind == ".json":
            yield from _strings(json.load(text))
        elif kind in (".jsonl", ".ndjson"):
            for line in text:
                if line.strip():
                    yield from _strings(json.loads(line))
        elif kind in (".csv", ".tsv"):
            for cells in csv.reader(text, delimiter="\t" if kind == ".tsv" else ","):
                yield from cells
        else:
            yield from (line.rstrip("\r\n") for line in text)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)


def mark(sets: Mapping[str, str], n: int, shortest: int) -> str:
    """The hash of everything that the index depends on.

    Raises:
        ModelwrightError: a path is missing.
    """
    found = hashlib.blake2b(digest_size=16)
    settings = [_VERSION, n, shortest, unicodedata.unidata_version, list(sets)]
    found.update(json.dumps(settings).encode())
    for name in sets:
        path = Path(sets[name])
        if not path.exists():
            raise ModelwrightError(f"step decontaminate: sets: {name}: {path} is not there")
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            with file.open("rb") as stream:
                found.update(hashlib.file_digest(stream, "blake2b").digest())
    return found.hexdigest()


def build(sets: Mapping[str, str], n: int, shortest: int) -> GramIndex:
    """The index: n-grams of every text, and whole texts of ``shortest`` to n - 1 words.

    Raises:
        ModelwrightError: a set cannot be read, holds no text that is long enough, or there are
            more than 64.
    """
    if len(sets) > MOST_NAMES:
        raise ModelwrightError(f"step decontaminate: sets: {len(sets)}, at most {MOST_NAMES}")
    texts: list[tuple[Hashes, int, int]] = []
    for number, (name, path) in enumerate(sets.items()):
        before = len(texts)
        for text in texts_of(Path(path)):
            hashes = folded_words(text)[0]
            if len(hashes) >= shortest:
                texts.append((hashes, n, number))
        if len(texts) == before:
            raise ModelwrightError(
                f"step decontaminate: sets: {name}: {path}: no text of {shortest} words or more"
            )
    return GramIndex.of(texts, shortest)


def index(sets: Mapping[str, str], n: int, shortest: int) -> GramIndex:
    """The index of named sets, from the cache if it was made before.

    Raises:
        ModelwrightError: see ``build`` and ``mark``.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = cache / "modelwright" / "evaluation-sets" / f"{mark(sets, n, shortest)}.npz"
    if path.exists():
        try:
            return load(path)
        except CorruptError:
            path.unlink(missing_ok=True)  # a cache: made again
    made = build(sets, n, shortest)
    with contextlib.suppress(OSError):  # no place for a cache: made again next time
        save(made, path)
    return made


def save(made: GramIndex, path: Path) -> None:
    """Write an index; a process beside this one never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray[Any, Any]] = {f"keys_{n}": keys for n, keys in made.keys.items()}
    arrays |= {f"marks_{n}": marks for n, marks in made.marks.items()}
    arrays["head"], arrays["heads"] = np.array(made.head), np.packbits(made.heads)
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    write_file(fresh, [content.getvalue()])
    rename(fresh, path)


def load(path: Path) -> GramIndex:
    """Read an index.

    Raises:
        CorruptError: it is damaged.
    """
    import zipfile  # noqa: PLC0415 - only for its error
    import zlib  # noqa: PLC0415

    try:
        with np.load(io.BytesIO(path.read_bytes())) as stored:
            lengths = sorted(int(k.partition("_")[2]) for k in stored if k.startswith("keys_"))
            keys = {n: stored[f"keys_{n}"] for n in lengths}
            marks = {n: stored[f"marks_{n}"] for n in lengths}
            heads = np.unpackbits(stored["heads"]).view(np.bool_)
            return GramIndex(keys, marks, int(stored["head"]), heads)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise CorruptError(f"{path}: damaged index of evaluation sets: {error}") from None
