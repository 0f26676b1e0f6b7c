"""Files that a table names by their paths: pictures, and recordings of sound.

The content of such a file goes to the row as it is; who needs its pixels or samples decodes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from modelwright.data.media_types import IMAGES, SOUNDS
from modelwright.errors import ModelwrightError
from modelwright.types import Row

TABLES = (".csv", ".tsv", ".jsonl", ".json")
LARGEST = 256 << 20  # bytes of one file
_KINDS = {"image": IMAGES, "audio": SOUNDS}  # what a row has of a file, and how its name ends


def with_files(rows: Iterable[Row], folder: Path, name: str) -> Iterator[Row]:
    """Rows of a table, with ``image`` and ``audio`` where columns name files in ``folder``.

    The first row decides which columns these are: the first one whose text ends as a picture's
    name does and names a file, and the same of recordings. Other tables are left as they are.

    Raises:
        ModelwrightError: a later row names a file that is not there.
    """
    columns: dict[str, str] = {}
    for i, row in enumerate(rows):
        if i == 0:
            columns = _columns(row, folder)
        found: dict[str, bytes | None] = {}
        for kind, column in columns.items():
            where = row.get(column)
            shown = f"{name}: row {row.get('id', i + 1)}: {column} {where!r}"
            there = isinstance(where, str) and where
            found[kind] = content(folder / str(where), shown) if there else None
        yield {**row, **found}


def named_files(rows: Iterable[Row], folder: Path) -> dict[str, list[Path]]:
    """The files that a table names, by kind ("image", "audio"), to be hashed beside it."""
    columns: dict[str, str] = {}
    found: dict[str, list[Path]] = {}
    for i, row in enumerate(rows):
        if i == 0:
            columns = _columns(row, folder)
            if not columns:
                break
        for kind, column in columns.items():
            if isinstance(where := row.get(column), str) and (folder / where).is_file():
                found.setdefault(kind, []).append(folder / where)
    return found


def content(path: Path, name: str) -> bytes:
    """The bytes of a file.

    Raises:
        ModelwrightError: it cannot be read, or is larger than LARGEST.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ModelwrightError(
                f"{name}: is larger than {LARGEST >> 20} MiB; make it smaller or remove it"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelwrightError(
            f"{name}: cannot be read ({reason}); put the file there or remove its row"
        ) from error


def _columns(row: Row, folder: Path) -> dict[str, str]:
    """The first column of each kind that names a file in ``folder``."""
    found = {}
    for kind, endings in _KINDS.items():
        named = (c for c, v in row.items() if _named(v, folder, endings))
        if (column := next(named, None)) is not None:
            found[kind] = column
    return found


def _named(value: object, folder: Path, endings: tuple[str, ...]) -> bool:
    if not isinstance(value, str) or PurePosixPath(value).suffix.lower() not in endings:
        return False
    try:
        return (folder / value).is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False
