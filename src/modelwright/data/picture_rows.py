"""Rows of pictures: a folder a class, or a tar of such folders.

``image`` holds the bytes of the file as they are; who needs its pixels decodes them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from modelwright.data.archive import tar_members
from modelwright.data.media_types import IMAGES
from modelwright.data.table_files import content
from modelwright.data.tree import label_of, part_of
from modelwright.data.waterfall import Problem
from modelwright.errors import ModelwrightError
from modelwright.types import Row

TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2")
# Files that say something of pictures, or that systems lay beside them: nobody misses their rows.
ABOUT = (
    *(".txt", ".md", ".rst", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".yaml", ".yml"),
    *(".html", ".ini", ".db", ".log"),
)
_PLAIN = ("readme", "license", "licence", "notice", "copying", "source", "makefile")
_FOR_NOTES = ("annotations", "captions", "labels", "metadata")  # folders that are no class
_READ = 1 << 16  # bytes of a JSON in which names of pictures are looked for


def is_picture(name: str | os.PathLike[str]) -> bool:
    """Whether a name ends as a picture's does."""
    return PurePosixPath(name).suffix.lower() in IMAGES


def unread(name: str | os.PathLike[str]) -> str:
    """Why a file beside pictures is not read; "" of pictures, hidden files, and notes on pictures.

    >>> unread("cat/a.heic")
    'files in .heic are not read, convert them to .jpg or .png'
    """
    path = PurePosixPath(name)
    kind = path.suffix.lower()
    if is_picture(path) or kind in ABOUT or any(part.startswith(".") for part in path.parts):
        return ""
    if not kind:
        return "" if path.name.lower() in _PLAIN else "files without an ending are not read"
    return f"files in {kind} are not read, convert them to .jpg or .png"


def without_notes(folder: Path, files: Sequence[Path], pictures: Sequence[Path]) -> list[Path]:
    """Files in the formats of texts and tables, less those that are notes on pictures beside them.

    Notes are a text or JSON of a picture's name; every JSON that names no picture; and texts
    altogether where there are no more of them than pictures.

    Args:
        folder: where they lie.
        files: which may be notes, relative to it.
        pictures: those beside them, relative to it.
    """
    named = {picture.with_suffix("") for picture in pictures}
    left = [f for f in files if f.suffix.lower() not in ABOUT or f.with_suffix("") not in named]
    texts = {f for f in left if f.suffix.lower() in (".txt", ".md")}
    left = [f for f in left if f not in texts or len(texts) > len(pictures)]
    return [f for f in left if f.suffix.lower() != ".json" or _names_pictures(folder / f)]


def _names_pictures(path: Path) -> bool:
    """Whether a JSON has the name of a picture near its beginning; also one that is not there."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_READ).lower()
    except OSError:  # whoever reads it says so
        return True
    return any(f'{kind}"'.encode() in head for kind in IMAGES)


def is_picture_tar(path: Path) -> bool:
    """Whether a file's name is that of a tar, which is read as one of pictures."""
    return path.name.lower().endswith(TARS)


def folder_rows(folder: Path, files: Sequence[Path]) -> Iterator[Row]:
    """``image``, ``label`` and ``split`` of the pictures of a folder, in ImageNet's layout.

    The label is the name of the folder that a picture lies in, the split is named by a folder
    above (train, val, test); neither is given where no folder says so. Files of kinds that are
    not read are rows with a ``problem``, in their place.

    Args:
        folder: the folder.
        files: its files, relative to it.

    Raises:
        ModelwrightError: a class folder is empty, or a file cannot be read.
    """
    _no_empty_class(folder, [file for file in files if is_picture(file)])
    for file in files:
        name = file.as_posix().encode("utf-8", "backslashreplace").decode()
        if is_picture(file):
            yield _row(name, content(folder / file, name))
        elif why := unread(file):
            yield unread_row(name, why)


def tar_rows(path: Path) -> Iterator[Row]:
    """The same of the pictures in a tar.

    Raises:
        CorruptError: the tar is damaged.
        ModelwrightError: there are none in it.
    """
    found, first = False, ""
    for member, packed in tar_members(path):
        name = member.removeprefix("./")
        if is_picture(name):
            found = True
            yield _row(name, packed)
        elif why := unread(name):
            first = first or f"; {name}: {why}"
            yield unread_row(name, why)
    if not found:
        raise ModelwrightError(
            f"{path.name}: no picture in it; readable: {', '.join(IMAGES)}{first}"
        )


def unread_row(name: str, why: str) -> Row:
    """The row of a file that leaves at once, with what its name tells and the reason."""
    return {**_row(name, b""), "problem": Problem(why)}


def _row(name: str, picture: bytes) -> Row:
    row = {"id": name, "image": picture}
    if (label := label_of(name)) is not None:
        row["label"] = label
    if (split := part_of(name)) is not None:
        row["split"] = split
    return row


def _no_empty_class(folder: Path, files: Sequence[Path]) -> None:
    """Refuse a class without pictures, from which nothing could be learned of it."""
    holding = {parent for file in files for parent in file.parents}
    beside = {file.parent.parent for file in files if len(file.parts) > 1}
    for path in sorted(p for p in folder.rglob("*") if p.is_dir()):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        known = hidden or path.name.lower() in _FOR_NOTES
        if name.parent in beside and name not in holding and not known:
            there = (unread(p.relative_to(folder)) for p in sorted(path.rglob("*")) if p.is_file())
            why = next((f" ({reason})" for reason in there if reason), "")
            raise ModelwrightError(
                f"{folder}: the folder {name.as_posix()} holds no picture{why}, so nothing can be"
                " learned of this class; fill it or remove it"
            )
