"""Rows of pictures with boxes: Pascal VOC's, COCO's or YOLO's notes beside them, folder or tar.

``image`` holds the bytes of a file, ``boxes`` a list of {label, x0, y0, x1, y1} in pixels from the
upper left corner, ``split`` the part that a folder, a list of Pascal VOC or the name of a COCO
file says.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from modelwright.data.archive import MAX_MEMBERS, names_in
from modelwright.data.box_notes import EMPTY, LOST, ORPHAN, may_be_yolo, read_notes
from modelwright.data.media_types import IMAGES
from modelwright.data.operations.operation import WorkRow
from modelwright.data.picture_rows import is_picture, unread
from modelwright.data.readers.images import Reader
from modelwright.data.readers.reader import Bad
from modelwright.data.tree import notes
from modelwright.data.waterfall import Note, Problem
from modelwright.errors import ModelwrightError
from modelwright.types import Row

_NOTES = (".xml", ".json")


def has_boxes(path: Path) -> bool:
    """Whether notes of Pascal VOC, COCO or YOLO lie beside pictures in a folder, or in a tar."""
    names = _names(path)
    if any(PurePosixPath(name).suffix.lower() in _NOTES for name in names) and any(
        not isinstance(item, Bad) and _is_note(item[1]) for item in notes(path, _NOTES)
    ):
        return True
    return may_be_yolo(names) and any(map(is_picture, names)) and bool(read_notes(path).shares)


def _names(path: Path) -> list[str]:
    """Names of the files of a folder or tar, in order, hidden ones apart."""
    if path.is_dir():
        names = [
            (Path(folder) / file).relative_to(path).as_posix()
            for folder, _, files in os.walk(path)
            for file in files
        ]
    else:
        names = names_in(path, MAX_MEMBERS)
    plain = (name.removeprefix("./") for name in names)
    return sorted(n for n in plain if not any(p.startswith(".") for p in PurePosixPath(n).parts))


def _is_note(content: bytes) -> bool:
    if b"<annotation" in content[:1000]:
        return True
    return content.lstrip()[:1] == b"{" and b'"annotations"' in content and b'"images"' in content


def box_rows(path: Path) -> Iterator[Row]:
    """The pictures of a folder or tar with their boxes, by name.

    A picture of which no note speaks has ``boxes`` None. Rows with a ``problem`` are, in their
    place, what is no picture, and at the end files of kinds that are not read, and notes on
    pictures that are not there.

    Raises:
        ModelwrightError: a note is broken or names a class that it does not define, two pictures
            have one name, so that notes cannot tell them apart, or there is no picture at all.
    """
    reader, found = Reader(labels="none"), read_notes(path)
    seen: dict[str, str] = {}
    names: list[str] = []
    for part in reader.cut(path):
        for item in reader.rows(path, part):
            if isinstance(item, Bad):
                if not is_picture(item.where) and item.reason != ORPHAN:
                    raise ModelwrightError(
                        f"{path.name}: {item.where}: {item.reason}; repair or remove it"
                    )
                names.append(item.where)
                yield _lost(item.where, item.reason)
                continue
            name, stem = item["id"], PurePosixPath(item["id"]).stem
            if (other := seen.setdefault(stem, name)) != name and not found.by_path():
                raise ModelwrightError(
                    f"{path.name}: {other} and {name} have one name, by which notes find their"
                    " picture; rename one, and its note"
                )
            names.append(name)
            row = _row(item)
            yield {**row, "note": Note(EMPTY)} if found.is_empty(name) else row
    missing = list(found.lost(names))
    if not seen:
        first = f"; {missing[0]}: {LOST}" if missing else ""
        raise ModelwrightError(f"{path}: no picture in it; readable: {', '.join(IMAGES)}{first}")
    yield from (_lost(name, why) for name in _names(path) if (why := unread(name)))
    yield from (_lost(name, LOST) for name in missing)


def _row(item: WorkRow) -> Row:
    row = {"id": item["id"], "image": item["media"], "boxes": item["meta"].get("boxes")}
    if split := item["meta"].get("split"):
        row["split"] = split
    return row


def _lost(name: str, why: str) -> Row:
    return {"id": name, "image": b"", "boxes": [], "problem": Problem(why)}


def packed_or_folder(folder: Path) -> Path:
    """The tar in a folder where there is one, else the folder."""
    return next(iter(sorted(folder.glob("*.tar*"))), folder) if folder.is_dir() else folder
