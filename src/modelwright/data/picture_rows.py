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
from modelwright.errors import ModelwrightError
from modelwright.types import Row

TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2")


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
        yield _row(name, content(folder / file, name))


def tar_rows(path: Path) -> Iterator[Row]:
    """The same of the pictures in a tar.

    Raises:
        CorruptError: the tar is damaged.
        ModelwrightError: there are none in it.
    """
    found = False
    for name, packed in tar_members(path):
        if is_picture(name):
            found = True
            yield _row(name.removeprefix("./"), packed)
    if not found:
        raise ModelwrightError(f"{path.name}: no picture in it; readable: {', '.join(IMAGES)}")


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
        if name.parent in beside and name not in holding and not hidden:
            raise ModelwrightError(
                f"{folder}: the folder {name.as_posix()} holds no picture, so nothing can be"
                " learned of this class; fill it or remove it"
            )
