"""Files that a table names by their paths: pictures, and recordings of sound.

The content of such a file goes to the row as it is; who needs its pixels or samples decodes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path, PurePosixPath

from modelwright.data.media_types import IMAGES, SOUNDS
from modelwright.data.waterfall import Problem
from modelwright.errors import ModelwrightError
from modelwright.types import Row

TABLES = (".csv", ".tsv", ".jsonl", ".json")
LARGEST = 256 << 20  # bytes of one file
FIRST = 1000  # rows in which a file is looked for, where the first one names one by its ending
LOST = "names a file that is not there, seen from the table's folder"
_KINDS = {"image": IMAGES, "audio": SOUNDS}  # what a row has of a file, and how its name ends


def with_files(rows: Iterable[Row], folder: Path, name: str) -> Iterator[Row]:
    """Rows of a table, with ``image`` and ``audio`` where columns name files in ``folder``.

    Which columns these are is seen at the beginning: the first one of the first row whose text
    ends as a picture's name does, and in one of the first rows names a file; and the same of
    recordings. A row whose file is not there has a ``problem``, and its id ends with the path.
    Tables without such a column are left as they are.

    Raises:
        ModelwrightError: a file is there and cannot be read, or is larger than LARGEST.
    """
    columns, found = _columns(rows, folder)
    for i, row in enumerate(found):
        files: dict[str, bytes | None] = {}
        lost = ""
        for kind, column in columns.items():
            where = row.get(column)
            shown = f"{name}: row {row.get('id', i + 1)}: {column} {where!r}"
            if not (isinstance(where, str) and where):
                files[kind] = None
            elif _there(folder / where):
                files[kind] = content(folder / where, shown)
            else:
                files[kind], lost = b"", f"{row.get('id', i + 1)}: {column} {where!r}"
        yield {**row, **files} | ({"id": lost, "problem": Problem(LOST)} if lost else {})


def named_files(rows: Iterable[Row], folder: Path) -> dict[str, list[Path]]:
    """The files that a table names, by kind ("image", "audio"), to be hashed beside it."""
    columns, every = _columns(rows, folder)
    found: dict[str, list[Path]] = {}
    for row in every if columns else ():
        for kind, column in columns.items():
            if isinstance(where := row.get(column), str) and where and _there(folder / where):
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


def _columns(rows: Iterable[Row], folder: Path) -> tuple[dict[str, str], Iterator[Row]]:
    """The first column of each kind that names a file in ``folder``, and all of the rows."""
    every = iter(rows)
    begun = list(islice(every, 1))
    may = {
        kind: [c for row in begun for c, v in row.items() if _named(v, endings)]
        for kind, endings in _KINDS.items()
    }
    if any(may.values()):  # else the rest of the table is not looked at here
        begun += islice(every, FIRST - 1)
    found = {}
    for kind, endings in _KINDS.items():
        there = (
            c for c in may[kind] if any(_is_file(row.get(c), folder, endings) for row in begun)
        )
        if (column := next(there, None)) is not None:
            found[kind] = column
    return found, chain(begun, every)


def _named(value: object, endings: tuple[str, ...]) -> bool:
    return isinstance(value, str) and PurePosixPath(value).suffix.lower() in endings


def _is_file(value: object, folder: Path, endings: tuple[str, ...]) -> bool:
    return isinstance(value, str) and _named(value, endings) and _there(folder / value)


def _there(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False
