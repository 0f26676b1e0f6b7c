"""The token shards of a folder or a corpus as one stream of documents, without copying them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwright.data.corpus.open import summary
from modelwright.data.token_files import Array, Shard, corrupt
from modelwright.errors import ModelwrightError


class Joined:
    """Arrays as if they were one behind the other, without copying them.

    Takes what training asks of a one-dimensional array: its length, slices, and integer arrays.
    """

    ndim = 1

    def __init__(self, parts: Sequence[Array]) -> None:
        self.parts = list(parts)
        self.dtype = self.parts[0].dtype
        lengths = [len(p) for p in self.parts]
        self.starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.shape = (int(self.starts[-1]),)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Array:
        """The items at a slice of step 1, or at an array of indices of any shape, copied."""
        if isinstance(key, slice):
            start, stop, _ = key.indices(len(self))
            first = int(np.searchsorted(self.starts, start, side="right")) - 1
            pieces = [self.parts[0][:0]]
            for i in range(first, len(self.parts)):
                if self.starts[i] >= stop:
                    break
                low = max(0, start - int(self.starts[i]))
                pieces.append(self.parts[i][low : stop - int(self.starts[i])])
            return np.concatenate(pieces)
        index = np.asarray(key)
        where = np.searchsorted(self.starts, index, side="right") - 1
        found = np.empty(index.shape, self.dtype)
        for i in np.unique(where):
            here = where == i
            found[here] = self.parts[i][index[here] - self.starts[i]]
        return found


class Bits:
    """The loss masks of shards as one array of bool; without a mask every token is learned."""

    ndim = 1
    dtype = np.dtype(np.bool_)

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.masks = [s.mask for s in shards]
        ends = np.cumsum([s.header.count for s in shards])
        self.starts = np.concatenate([[0], ends]).astype(np.int64)
        self.shape = (int(self.starts[-1]),)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[np.bool_]:
        """Which tokens are learned, at a slice or an array of indices."""
        index = np.arange(*key.indices(len(self))) if isinstance(key, slice) else np.asarray(key)
        learned = np.ones(index.shape, np.bool_)
        if all(mask is None for mask in self.masks):
            return learned
        where = np.searchsorted(self.starts, index, side="right") - 1
        for i in np.unique(where):
            mask = self.masks[i]
            if mask is not None:
                here = where == i
                at = index[here] - self.starts[i]
                learned[here] = (mask[at >> 3] >> (at & 7).astype(np.uint8)) & 1
        return learned


class TokenShards:
    """The shards of one folder or of one part of a corpus, as one stream of documents.

    Attributes:
        tokens: all ids as one array (a ``Joined`` where there are several shards).
        learn: which of them are learned.
        offsets: the bounds of the documents, int64, (documents + 1,).
    """

    def __init__(self, folder: Path, part: str | None = None) -> None:
        """Open the shards of ``folder``.

        Args:
            folder: a folder of shards, or of a corpus, whose commits name its shards.
            part: "train", "validation" or "test": only shards of this name.

        Raises:
            ModelwrightError: there are none.
            CorruptError: one is damaged, or they were made by different tokenizers.
        """
        paths = shard_files(folder, part)
        if not paths:
            what = f"no token shards of {part}" if part else "no token shards"
            raise ModelwrightError(f"{folder}: holds {what}; give the corpus a tokenizer")
        self.shards = [Shard(path) for path in paths]
        first = self.shards[0].header
        for shard in self.shards:
            if (shard.header.fingerprint, shard.header.vocabulary) != (
                first.fingerprint,
                first.vocabulary,
            ):
                raise corrupt(shard.path, f"made by another tokenizer than {paths[0]}")
        self.folder, self.fingerprint, self.vocabulary = folder, first.fingerprint, first.vocabulary
        used = [s for s in self.shards if s.header.count] or self.shards[:1]
        parts = [s.tokens for s in used]
        wide = max(p.dtype.itemsize for p in parts) == min(p.dtype.itemsize for p in parts)
        if not wide:
            raise corrupt(paths[0], "16 and 32 bits are mixed")
        self.tokens: Any = parts[0] if len(parts) == 1 else Joined(parts)
        self.learn = Bits(used)
        starts = np.cumsum([0, *(s.header.count for s in used[:-1])])
        ends = [s.ends + start for s, start in zip(used, starts, strict=True)]
        self.offsets = np.concatenate([np.zeros(1, np.int64), *ends])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def document(self, number: int) -> Array:
        """The ids of a document, (T,)."""
        found: Array = self.tokens[int(self.offsets[number]) : int(self.offsets[number + 1])]
        return found

    def windows(self, length: int) -> Iterator[Array]:
        """The stream in pieces of ``length`` ids, in order; the last one may be shorter."""
        for start in range(0, len(self.tokens), length):
            yield self.tokens[start : start + length]

    def places(self) -> Iterator[tuple[str, int]]:
        """Source and record row of every document, in order."""
        for shard in self.shards:
            for source, row in zip(shard.sources.tolist(), shard.rows.tolist(), strict=True):
                yield shard.names[source], row

    def verify(self) -> None:
        """Read all files and compare their checksums.

        Raises:
            CorruptError: one has changed; its name is in the message.
        """
        for shard in self.shards:
            shard.verify()

    def checksums(self) -> dict[str, str]:
        """Shard -> checksum of its ids: what training on them depends on."""
        return {
            str(s.path.relative_to(self.folder)): f"{s.header.checksum:016x}" for s in self.shards
        }


def shard_files(folder: Path, part: str | None = None) -> list[Path]:
    """The ``.tok`` files of a folder, or those that a finished corpus names, in its order.

    Raises:
        ModelwrightError: the corpus is not finished.
        CorruptError: a record of it is damaged.
    """
    stage = folder / "stages" / "tokens"
    if not stage.is_dir():
        return sorted(folder.glob(f"{part or '*'}.tok"))
    found = []
    for unit in summary(folder)["stages"].get("tokens", ()):
        record = stage / f"{unit}.json"
        try:
            files = json.loads(record.read_bytes())["files"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise corrupt(record, f"missing or damaged commit record ({error})") from error
        names = [n for n in sorted(files) if n.endswith(".tok")]
        found += [stage / unit / n for n in names if part in (None, n[: -len(".tok")])]
    return found
