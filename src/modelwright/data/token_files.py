"""Files of a token shard: documents as ids on disk, checked, and memory-mapped when read.

A shard ``NAME`` is up to three files, little-endian, each of a 64-byte header and a payload:

* ``NAME.tok``: the ids, uint16 or uint32, documents end to end;
* ``NAME.idx``: the end of every document in ids (uint64), its source (uint32), its row in the
  records it was made from (uint32), and the names of the sources (JSON);
* ``NAME.msk``, where not every token is learned: a bit a token, the lowest bit first.

A header is the magic, a version, the bytes of an item, the vocabulary, items, documents, the
fingerprint of the tokenizer and the xxh3-64 of the payload.
"""

from __future__ import annotations

import json
import mmap
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from modelwright.errors import CorruptError, MachineError, ModelwrightError

Array = NDArray[Any]

HEADER = struct.Struct("<8sHHIQQQ16sQ")  # 64 bytes
VERSION = 1
MAGIC = {".tok": b"MWTOKENS", ".idx": b"MWTOKIDX", ".msk": b"MWTOKMSK"}
_ITEM = {".idx": 8, ".msk": 1}  # what their headers say of an item
SMALL = 1 << 16  # the largest vocabulary whose ids fit 16 bits
_BLOCK = 1 << 24  # bytes hashed at a time


def _xxh3() -> Any:
    try:
        import xxhash  # noqa: PLC0415 - of an extra
    except ImportError as error:
        raise MachineError(
            "token shards are checked by xxhash, which is not installed: "
            "pip install 'modelwright[data]'"
        ) from error
    return xxhash.xxh3_64()


@dataclass(frozen=True)
class Header:
    """The first 64 bytes of a file of a shard."""

    magic: bytes
    item_bytes: int
    vocabulary: int
    count: int  # ids of the shard
    documents: int
    fingerprint: bytes  # of the tokenizer, 16 bytes
    checksum: int  # of the payload

    def pack(self) -> bytes:
        """The header as it is written."""
        return HEADER.pack(
            self.magic,
            VERSION,
            self.item_bytes,
            0,
            self.vocabulary,
            self.count,
            self.documents,
            self.fingerprint,
            self.checksum,
        )

    @staticmethod
    def read(path: Path) -> Header:
        """The header of a file.

        Raises:
            CorruptError: there is no such file, or it is another one.
        """
        try:
            with path.open("rb") as file:
                content = file.read(HEADER.size)
        except OSError as error:
            raise corrupt(path, f"cannot be read ({error.strerror})") from error
        if len(content) < HEADER.size:
            raise corrupt(path, f"{len(content)} bytes are no header")
        magic, version, item, zero, vocabulary, count, documents, mark, check = HEADER.unpack(
            content
        )
        if magic != MAGIC[path.suffix] or version != VERSION or zero:
            raise corrupt(path, f"not a token shard of version {VERSION}")
        return Header(magic, item, vocabulary, count, documents, mark, check)


def corrupt(path: Path, why: str) -> CorruptError:
    """What a damaged file of a shard is said to be."""
    return CorruptError(f"{path}: {why}; delete it and make the tokens again")


def dtype_of(vocabulary: int) -> np.dtype[Any]:
    """The smallest type that holds every id."""
    return np.dtype("<u2" if vocabulary <= SMALL else "<u4")


class ShardWriter:
    """Writes one shard, one document or many at a time; memory grows by 16 bytes a document.

    Use it in a ``with`` block, and ``close`` it: what was not closed is no shard.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        vocabulary: int,
        fingerprint: bytes,
        dtype: np.dtype[Any] | None = None,
    ) -> None:
        """Begin ``name`` in ``folder``.

        Raises:
            ModelwrightError: a ``dtype`` that cannot hold the vocabulary.
        """
        self.dtype = np.dtype(dtype or dtype_of(vocabulary)).newbyteorder("<")
        if self.dtype.itemsize == 2 and vocabulary > SMALL:
            raise ModelwrightError(
                f"{name}: {vocabulary:,} ids do not fit 16 bits, which hold {SMALL:,}; use 32"
            )
        if self.dtype not in (np.dtype("<u2"), np.dtype("<u4")):
            raise ModelwrightError(f"{name}: ids are uint16 or uint32, not {self.dtype}")
        self.folder, self.name = folder, name
        self.vocabulary, self.fingerprint = vocabulary, fingerprint
        self.count = 0
        self._ends, self._sources, self._rows = array("Q"), array("I"), array("I")
        self._names: dict[str, int] = {}
        self._sum = _xxh3()
        self._file: BinaryIO = (folder / f"{name}.tok").open("xb")
        self._file.write(bytes(HEADER.size))
        self._masks: list[NDArray[np.bool_]] = []  # from the first document that has one

    def add(
        self, ids: Array, source: str, row: int, learn: NDArray[np.bool_] | None = None
    ) -> None:
        """Append a document.

        Args:
            ids: (T,), T >= 1, each below the vocabulary.
            source: the name of its source.
            row: its row in the records it comes from.
            learn: (T,), which tokens are learned; left out: all.
        """
        if not len(ids) or int(ids.max()) >= self.vocabulary:
            raise self._fault(row, "an id beyond the vocabulary" if len(ids) else "no tokens")
        content = np.ascontiguousarray(ids, dtype=self.dtype).tobytes()
        self._file.write(content)
        self._sum.update(content)
        if learn is not None and not self._masks:
            self._masks.append(np.ones(self.count, np.bool_))
        if self._masks:
            self._masks.append(np.ones(len(ids), np.bool_) if learn is None else learn)
        self.count += len(ids)
        self._ends.append(self.count)
        self._sources.append(self._names.setdefault(source, len(self._names)))
        self._rows.append(row)

    def add_many(
        self, ids: Array, lengths: Array, sources: Array, names: Sequence[str], rows: Array
    ) -> None:
        """Append documents, as ``add`` does one after the other; all their tokens are learned.

        Args:
            ids: (T,), theirs behind one another, each below the vocabulary.
            lengths: (documents,), how many ids each has, 1 or more; their sum is T.
            sources: (documents,), the source of each, an index into ``names``.
            names: of sources; those that no document has are not kept.
            rows: (documents,), the row of each in the records it comes from.
        """
        if not len(lengths):
            return
        ends = np.cumsum(lengths)
        if int(lengths.min()) < 1:
            raise self._fault(int(rows[lengths.argmin()]), "no tokens")
        if int(ids.max()) >= self.vocabulary:
            which = np.searchsorted(ends, ids.argmax(), side="right")
            raise self._fault(int(rows[which]), "an id beyond the vocabulary")
        content = np.ascontiguousarray(ids, dtype=self.dtype).data
        self._file.write(content)
        self._sum.update(content)
        if self._masks:
            self._masks.append(np.ones(len(ids), np.bool_))
        used, first, where = np.unique(sources, return_index=True, return_inverse=True)
        numbers = np.zeros(len(used), np.uint32)
        for i in np.argsort(first).tolist():  # numbered as they come
            numbers[i] = self._names.setdefault(names[used[i]], len(self._names))
        self._ends.frombytes((self.count + ends).astype(np.uint64).tobytes())
        self._sources.frombytes(numbers[where].tobytes())
        self._rows.frombytes(np.asarray(rows, dtype=np.uint32).tobytes())
        self.count += len(ids)

    def close(self) -> dict[str, Any]:
        """Finish the files; ``documents``, ``tokens``, ``bytes`` and documents by source."""
        size, shared = self.dtype.itemsize, (self.vocabulary, self.count, len(self._ends))
        header = Header(MAGIC[".tok"], size, *shared, self.fingerprint, self._sum.intdigest())
        self._file.seek(0)
        self._file.write(header.pack())
        self._file.close()
        index = np.array(self._ends, "<u8").tobytes()
        index += np.array(self._sources, "<u4").tobytes() + np.array(self._rows, "<u4").tobytes()
        index += json.dumps(list(self._names), ensure_ascii=False).encode()
        self._write(".idx", index)
        if self._masks:
            bits = np.packbits(np.concatenate(self._masks), bitorder="little")
            self._write(".msk", bits.tobytes())
        by_source = np.bincount(self._sources, minlength=len(self._names)).tolist()
        return {
            "documents": len(self._ends),
            "tokens": self.count,
            "bytes": self.count * size,
            "sources": dict(sorted(zip(self._names, by_source, strict=True))),
        }

    def _fault(self, row: int, what: str) -> ModelwrightError:
        return ModelwrightError(
            f"{self.name}: row {row} has {what}; this is a fault of the tokenizer"
        )

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _write(self, suffix: str, payload: bytes) -> None:
        check = _xxh3()
        check.update(payload)
        shared = (self.vocabulary, self.count, len(self._ends), self.fingerprint)
        header = Header(MAGIC[suffix], _ITEM[suffix], *shared, check.intdigest())
        with (self.folder / f"{self.name}{suffix}").open("xb") as file:
            file.write(header.pack())
            file.write(payload)


class Shard:
    """One shard, memory-mapped.

    Attributes:
        tokens: ids (count,), read-only.
        ends: the end of every document, int64.
        sources: of every document, an index into ``names``.
        rows: of every document, its row in the records.
    """

    def __init__(self, path: Path) -> None:
        """Open ``NAME.tok`` and what lies beside it; the index is checked, the ids are not.

        Raises:
            CorruptError: a file is missing, cut short, or does not fit the others.
        """
        self.path = path
        self.header = Header.read(path)
        count, item = self.header.count, self.header.item_bytes
        if item not in (2, 4) or (item == 2 and self.header.vocabulary > SMALL):
            raise corrupt(path, f"{item} bytes an id of {self.header.vocabulary:,}")
        _expect(path, count * item)
        self.tokens = _mapped(path, np.dtype(f"<u{item}"), count)
        self._read_index(path.with_suffix(".idx"))
        mask = path.with_suffix(".msk")
        self.mask: Array | None = None
        if mask.exists():
            self._beside(mask, _ITEM[".msk"])
            _expect(mask, -(-count // 8))
            self.mask = _mapped(mask, np.dtype("u1"), -(-count // 8))

    def _beside(self, path: Path, item: int) -> Header:
        """The header of a file of this shard, which must belong to it."""
        header = Header.read(path)
        if header.item_bytes != item:
            raise corrupt(path, f"{header.item_bytes} bytes an item")
        ours = self.header
        if (header.count, header.documents, header.vocabulary, header.fingerprint) != (
            ours.count,
            ours.documents,
            ours.vocabulary,
            ours.fingerprint,
        ):
            raise corrupt(path, f"belongs to another shard than {self.path.name}")
        return header

    def _read_index(self, path: Path) -> None:
        header = self._beside(path, _ITEM[".idx"])
        documents = header.documents
        payload = path.read_bytes()[HEADER.size :]
        check = _xxh3()
        check.update(payload)
        if check.intdigest() != header.checksum or len(payload) < 16 * documents:
            raise corrupt(path, "its content does not fit its checksum")
        self.ends = np.frombuffer(payload, "<u8", documents).astype(np.int64)
        self.sources = np.frombuffer(payload, "<u4", documents, 8 * documents)
        self.rows = np.frombuffer(payload, "<u4", documents, 12 * documents)
        self.names: list[str] = json.loads(payload[16 * documents :])
        last = int(self.ends[-1]) if documents else 0
        if last != header.count or (np.diff(self.ends, prepend=0) < 1).any():
            raise corrupt(path, "its documents do not fit the ids")

    def verify(self) -> None:
        """Read everything and compare the checksums.

        Raises:
            CorruptError: a file has changed since it was written.
        """
        for path in (self.path, self.path.with_suffix(".msk")):
            if not path.exists():
                continue
            check = _xxh3()
            with path.open("rb") as file:
                file.seek(HEADER.size)
                while block := file.read(_BLOCK):
                    check.update(block)
            if check.intdigest() != Header.read(path).checksum:
                raise corrupt(path, "its content does not fit its checksum")


def _expect(path: Path, payload: int) -> None:
    size = path.stat().st_size
    if size != HEADER.size + payload:
        raise corrupt(path, f"{size:,} bytes, {HEADER.size + payload:,} were written")


def _mapped(path: Path, dtype: np.dtype[Any], count: int) -> Array:
    """A file's payload as an array that is read when it is used."""
    if not count:
        return np.zeros(0, dtype)
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(content, dtype, count, HEADER.size)
