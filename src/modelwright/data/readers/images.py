"""Images: folders a label, ImageNet's layout, Pascal VOC and COCO boxes, and tars of these."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from modelwright.data.media_types import IMAGES
from modelwright.data.operations.operation import WorkRow
from modelwright.data.readers.reader import Bad, Range, new_row
from modelwright.data.tree import cut_tree, label_of, notes, part_of, sniffed
from modelwright.errors import MachineError

Boxes = dict[str, Any]  # label, and x0, y0, x1, y1 in pixels from the upper left corner


@dataclass
class _Notes:
    """What notes say of pictures, by the stem of their names."""

    boxes: dict[str, list[Boxes]]
    parts: dict[str, str]
    bad: list[Bad]


@dataclass(frozen=True)
class Reader:
    """Pictures.

    Attributes:
        labels: "folder" takes the folder a picture lies in, unless it has boxes or the folder's
            name is of no class ("images", "train", ...); "none" takes none.
    """

    version: ClassVar[int] = 1
    suffixes: ClassVar[tuple[str, ...]] = IMAGES
    folders: ClassVar[bool] = True
    labels: str = "folder"

    def cut(self, path: Path) -> list[Range]:
        """Ranges of about 64 MiB of pictures."""
        return cut_tree(path, self.suffixes)

    def rows(self, path: Path, part: Range) -> Iterator[WorkRow | Bad]:
        """One row a picture; its id is its name.

        ``media`` are its bytes, not decoded: that is the step ``images``. ``meta`` holds
        ``split`` where a folder or a list of Pascal VOC names one, and ``boxes`` where there are
        annotations: a list of {label, x0, y0, x1, y1} in pixels.
        """
        found = _notes(path, path.stat().st_mtime_ns)
        if part.start == 0:
            yield from found.bad
        for item in sniffed(path, part, self.suffixes, "image", "an image"):
            if isinstance(item, Bad):
                yield item
                continue
            name, content, mime = item
            stem = PurePosixPath(name).stem
            meta: dict[str, Any] = {}
            if split := found.parts.get(stem) or part_of(name):
                meta["split"] = split
            if (boxes := found.boxes.get(stem)) is not None:
                meta["boxes"] = boxes
            label = label_of(name) if self.labels == "folder" and boxes is None else None
            yield new_row(name, "image", media=content, mime=mime, label=label, meta=meta)


@lru_cache(maxsize=4)
def _notes(path: Path, _changed: int) -> _Notes:
    """Boxes and parts from annotations, kept since every range of a source asks for them."""
    found = _Notes({}, {}, [])
    if path.is_file() and path.suffix.lower() in IMAGES:
        return found
    for item in notes(path, (".xml", ".json", ".txt")):
        if isinstance(item, Bad):
            found.bad.append(item)
            continue
        name, content = item
        kind = PurePosixPath(name).suffix.lower()
        if kind == ".xml" and b"<annotation" in content[:1000]:
            _voc(name, content, found)
        elif kind == ".json":
            _coco(name, content, found)
        elif "imagesets" in name.lower() and (split := part_of(f"{PurePosixPath(name).stem}/x")):
            stems = (
                line.split()[0] for line in content.decode(errors="replace").splitlines() if line
            )
            found.parts |= dict.fromkeys(stems, split)
    return found


def _voc(name: str, content: bytes, found: _Notes) -> None:
    """The boxes of one picture in Pascal VOC's XML (Everingham et al. 2010)."""
    try:
        from defusedxml.ElementTree import fromstring  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MachineError(
            f"{name}: needs defusedxml, which is not installed: pip install 'modelwright[data]'"
        ) from error
    try:
        root = fromstring(content)
        boxes = []
        for thing in root.iter("object"):
            corners = [
                float(thing.findtext(f"bndbox/{c}")) for c in ("xmin", "ymin", "xmax", "ymax")
            ]
            boxes.append(_box(thing.findtext("name") or "", *corners))
    except (SyntaxError, ValueError, TypeError) as error:
        found.bad.append(Bad(name, f"broken annotation ({type(error).__name__})"))
        return
    found.boxes[PurePosixPath(name).stem] = boxes


def _coco(name: str, content: bytes, found: _Notes) -> None:
    """The boxes of all pictures in COCO's JSON (Lin et al. 2014): [x, y, width, height]."""
    try:
        about = json.loads(content)
        if not isinstance(about, dict) or not {"images", "annotations"} <= about.keys():
            return
        names = {c["id"]: str(c["name"]) for c in about.get("categories", [])}
        stems = {i["id"]: PurePosixPath(i["file_name"]).stem for i in about["images"]}
        boxes: dict[str, list[Boxes]] = {stem: [] for stem in stems.values()}
        for one in about["annotations"]:
            if one.get("iscrowd"):  # a region of many things, which no box outlines
                continue
            x, y, width, height = map(float, one["bbox"])
            if (number := one["category_id"]) not in names:
                raise ValueError(f"no category {number!r} among those of the file")
            boxes[stems[one["image_id"]]].append(_box(names[number], x, y, x + width, y + height))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        found.bad.append(Bad(name, f"broken annotations ({type(error).__name__}: {error})"[:200]))
        return
    found.boxes |= boxes


def _box(label: str, x0: float, y0: float, x1: float, y1: float) -> Boxes:
    return {"label": label, "x0": x0, "y0": y0, "x1": x1, "y1": y1}
