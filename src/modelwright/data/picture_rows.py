"""Rows of pictures: a folder a class, a tar of such folders, or a table that names the files.

``image`` holds the bytes of the file as they are; who needs its pixels decodes them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from modelwright.data.archive import tar_members
from modelwright.data.media_types import IMAGES
from modelwright.data.tree import label_of, part_of
from modelwright.errors import ModelwrightError
from modelwright.types import Row

TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2")
TABLES = (".csv", ".tsv", ".jsonl", ".json")
LARGEST = 256 << 20  # bytes of one file


def is_picture(name: str | os.PathLike[str]) -> bool:
    """Whether a name ends as a picture's does."""
    return PurePosixPath(name).suffix.lower() in IMAGES


def is_picture_tar(path: Path) -> bool:
    """Whether a file's name is that of a tar, which is read as one of pictures."""
    return path.name.lower().endswith(TARS)


def folder_rows(folder: Path, files: Sequence[Path]) -> Iterator[Row]:
    """``image``, ``label`` and ``split`` of the pictures of a folder, in ImageNet's layout.

    The label is the name of the folder that a picture lies in, the split is named by a folder
    above (train, val, test); neither is given where no folder says so.

    Args:
        folder: the folder.
        files: the pictures, relative to it.

    Raises:
        ModelwrightError: a class folder is empty, or a file cannot be read.
    """
    _no_empty_class(folder, files)
    for file in files:
        name = file.as_posix().encode("utf-8", "backslashreplace").decode()
        yield _row(name, _content(folder / file, name))


def tar_rows(path: Path) -> Iterator[Row]:
    """The same of the pictures in a tar.

    Raises:
        CorruptError: the tar is damaged.
        ModelwrightError: there are none in it.
    """
    found = False
    for name, content in tar_members(path):
        if is_picture(name):
            found = True
            yield _row(name.removeprefix("./"), content)
    if not found:
        raise ModelwrightError(f"{path.name}: no picture in it; readable: {', '.join(IMAGES)}")


def with_pictures(rows: Iterable[Row], folder: Path, name: str) -> Iterator[Row]:
    """Rows of a table, with ``image`` where a column names pictures that lie in ``folder``.

    The first row decides which column that is: the one whose text ends as a picture's name does
    and names a file. A table without such a column is left as it is.

    Raises:
        ModelwrightError: a later row names a file that is not there.
    """
    column = ""
    for i, row in enumerate(rows):
        if i == 0:
            column = next((c for c, v in row.items() if _named(v, folder)), "")
        if not column:
            yield row
            continue
        where = row.get(column)
        if not isinstance(where, str) or not where:
            yield {**row, "image": None}
            continue
        shown = f"{name}: row {row.get('id', i + 1)}: {column} {where!r}"
        yield {**row, "image": _content(folder / where, shown)}


def named_files(rows: Iterable[Row], folder: Path) -> list[Path]:
    """The pictures that a table names, so that they can be hashed beside it."""
    found: list[Path] = []
    column = ""
    for i, row in enumerate(rows):
        if i == 0:
            column = next((c for c, v in row.items() if _named(v, folder)), "")
        if not column:
            return []
        if isinstance(where := row.get(column), str) and (folder / where).is_file():
            found.append(folder / where)
    return found


def _named(value: object, folder: Path) -> bool:
    if not isinstance(value, str) or not is_picture(value):
        return False
    try:
        return (folder / value).is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _row(name: str, content: bytes) -> Row:
    row = {"id": name, "image": content}
    if (label := label_of(name)) is not None:
        row["label"] = label
    if (split := part_of(name)) is not None:
        row["split"] = split
    return row


def _content(path: Path, name: str) -> bytes:
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


def _no_empty_class(folder: Path, files: Sequence[Path]) -> None:
    """Refuse a class without pictures, from which nothing could be learned of it."""
    holding = {parent for file in files for parent in file.parents}
    beside = {file.parent.parent for file in files if len(file.parts) > 1}
    for path in sorted(p for p in folder.rglob("*") if p.is_dir()):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        if name.parent in beside and name not in holding and not hidden:
            raise ModelwrightError(
                f"{folder}: the folder {name.as_posix()} holds no picture, so nothing can be"
                " learned of this class; fill it or remove it"
            )
