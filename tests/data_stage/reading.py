"""What the tests of readers share: read a path as a source is read."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections import Counter
from pathlib import Path

from modelwright.data.readers.reader import Bad, Passed, inputs, make_reader, read


def rows_of(path: Path, name: str | None = None, **settings) -> tuple[list[dict], list[Bad]]:
    """All rows and all that is bad of a file or folder, cut as the engine cuts it."""
    rows, bad = [], []
    for one in inputs([path], path, name):
        reader = make_reader(one.reader, settings)
        for part in reader.cut(one.path):
            for item in read(one, reader, part, source="s", license="CC0"):
                if not isinstance(item, Passed):
                    (bad if isinstance(item, Bad) else rows).append(item)
    assert len({row["id"] for row in rows}) == len(rows)
    return rows, bad


def passed_of(path: Path, name: str | None = None, **settings) -> Counter[str]:
    """What of a file or folder was passed over, by reason."""
    counted: Counter[str] = Counter()
    for one in inputs([path], path, name):
        reader = make_reader(one.reader, settings)
        for part in reader.cut(one.path):
            found = read(one, reader, part, source="s", license="CC0")
            counted.update(item.reason for item in found if isinstance(item, Passed))
    return counted


def texts_of(path: Path, name: str | None = None, **settings) -> list[str]:
    rows, bad = rows_of(path, name, **settings)
    assert not bad
    return [row["text"] for row in rows]


def tar_of(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def gz(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)
