"""Rows of pictures with boxes: Pascal VOC's XML or COCO's JSON beside them, in a folder or a tar.

``image`` holds the bytes of a file, ``boxes`` a list of {label, x0, y0, x1, y1} in pixels from the
upper left corner, ``split`` the part that a folder or a list of Pascal VOC names.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from modelwright.data.archive import names_in
from modelwright.data.picture_rows import is_picture
from modelwright.data.readers.images import Reader
from modelwright.data.readers.reader import Bad
from modelwright.data.tree import notes
from modelwright.errors import ModelwrightError
from modelwright.types import Row

_NOTES = (".xml", ".json")


def has_boxes(path: Path) -> bool:
    """Whether notes of Pascal VOC or COCO lie in a folder, or in a tar."""
    if path.is_dir():
        names = [p.name for p in path.rglob("*") if p.suffix.lower() in (*_NOTES, ".jpg", ".png")]
    else:
        names = names_in(path)
    if not any(PurePosixPath(name).suffix.lower() in _NOTES for name in names):
        return False
    return any(not isinstance(item, Bad) and _is_note(item[1]) for item in notes(path, _NOTES))


def _is_note(content: bytes) -> bool:
    if b"<annotation" in content[:1000]:
        return True
    return content.lstrip()[:1] == b"{" and b'"annotations"' in content and b'"images"' in content


def box_rows(path: Path) -> Iterator[Row]:
    """The pictures of a folder or tar with their boxes, by name.

    A picture of which no note speaks has ``boxes`` None; one that is none has a ``problem``.

    Raises:
        ModelwrightError: a note is broken or names a class that it does not define, or two
            pictures have one name, so that notes cannot tell them apart.
    """
    reader = Reader(labels="none")
    seen: dict[str, str] = {}
    for part in reader.cut(path):
        for item in reader.rows(path, part):
            if isinstance(item, Bad):
                if not is_picture(item.where):
                    raise ModelwrightError(
                        f"{path.name}: {item.where}: {item.reason}; repair or remove it"
                    )
                yield {"id": item.where, "image": b"", "boxes": [], "problem": item.reason}
                continue
            name, stem = item["id"], PurePosixPath(item["id"]).stem
            if (other := seen.setdefault(stem, name)) != name:
                raise ModelwrightError(
                    f"{path.name}: {other} and {name} have one name, by which notes find their"
                    " picture; rename one, and its note"
                )
            row = {"id": name, "image": item["media"], "boxes": item["meta"].get("boxes")}
            if split := item["meta"].get("split"):
                row["split"] = split
            yield row


def packed_or_folder(folder: Path) -> Path:
    """The tar in a folder where there is one, else the folder."""
    return next(iter(sorted(folder.glob("*.tar*"))), folder) if folder.is_dir() else folder
