"""Notes on pictures: boxes in Pascal VOC's XML, COCO's JSON and YOLO's texts, and lists of parts.

VOC and COCO find their picture by the stem of its name, YOLO by its path: ``labels/train/a.txt``
is of ``images/train/a.jpg``, ``train/labels/a.txt`` of ``train/images/a.jpg``, and beside
``classes.txt`` or ``data.yaml`` also ``a.txt`` of ``a.jpg``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from modelwright.data.media_types import IMAGES
from modelwright.data.pictures import Undecodable, measured
from modelwright.data.readers.reader import Bad
from modelwright.data.tree import notes, part_of
from modelwright.errors import MachineError

Boxes = dict[str, Any]  # label, and x0, y0, x1, y1 in pixels from the upper left corner
ORPHAN = "annotation of an image that its file does not list"
LOST = "notes on a picture that is not there"
EMPTY = "without a label file where others have one, taken as a picture of nothing"
_KINDS = (".xml", ".json", ".txt", ".yaml", ".yml")
# COCO's other notes on the same pictures, which are no boxes of all classes.
_OTHERS = ("person_keypoints_", "captions_", "stuff_", "panoptic_", "image_info_")
_CLASSES = "classes.txt"
_SIDES = ("centre x", "centre y", "width", "height")
_MEANT = "a class and centre x, centre y, width and height as shares of the picture are meant"


_Share = tuple[str, float, float, float, float]  # label; _SIDES


@dataclass
class BoxNotes:
    """What the notes of a folder or container say.

    Attributes:
        boxes: of VOC and COCO, by the stem of the picture's name.
        shares: of YOLO, by the picture's place: label, and centre x, centre y, width and height.
        parts: by stem, as a list of VOC says; ``named`` as the name of a COCO file does.
        told: which picture a stem or place is of, or the note where that names none.
        bad: what is broken.
        orphans: boxes whose picture the note itself does not know.
    """

    boxes: dict[str, list[Boxes]] = field(default_factory=dict)
    shares: dict[str, list[_Share]] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    bad: list[Bad] = field(default_factory=list)
    orphans: list[Bad] = field(default_factory=list)

    def part(self, name: str) -> str | None:
        """The part of the data that a picture belongs to."""
        stem = PurePosixPath(name).stem
        return self.parts.get(stem) or part_of(name) or self.named.get(stem)

    def of(self, name: str, content: bytes) -> list[Boxes] | None:
        """The boxes of a picture, in pixels; None where no note speaks of it."""
        if (found := self.boxes.get(PurePosixPath(name).stem)) is not None:
            return found
        if self.is_empty(name):
            return []
        if (shares := self.shares.get(place(name))) is None:
            return None
        try:
            height, width, _ = measured(content)
        except Undecodable:  # the picture leaves, and says why
            return []
        return [
            _box(
                label,
                *((x - w / 2) * width, (y - h / 2) * height),
                *((x + w / 2) * width, (y + h / 2) * height),
            )
            for label, x, y, w, h in shares
        ]

    def is_empty(self, name: str) -> bool:
        """Whether a picture lacks a label file among others that have one: YOLO's background."""
        where = place(name)
        known = where in self.shares or PurePosixPath(name).stem in self.boxes
        return not known and str(PurePosixPath(where).parent) in self._labelled

    def by_path(self) -> bool:
        """Whether notes find their pictures by path, so that names may occur twice."""
        return bool(self.shares) and not self.boxes

    def lost(self, names: Sequence[str]) -> Iterator[str]:
        """Pictures of which notes speak, and that are not among ``names``."""
        there = {PurePosixPath(name).stem for name in names} | {place(name) for name in names}
        yield from (who for key, who in self.told.items() if key not in there)

    @cached_property
    def _labelled(self) -> set[str]:
        """The places of folders in which at least one picture has a label file."""
        return {str(PurePosixPath(where).parent) for where in self.shares}


def place(name: str) -> str:
    """Where a picture and its label file both lie: the path but for ``images`` and ``labels``.

    >>> place("images/train/a.jpg") == place("labels/train/a.txt") == "/train/a"
    True
    """
    path = PurePosixPath(name)
    folders = [p for p in path.parent.parts if p.lower() not in ("images", "labels", ".")]
    return "/" + "/".join([*folders, path.stem])  # no stem begins so


def may_be_yolo(names: Sequence[str]) -> bool:
    """Whether names are such that label files of YOLO may be among them."""
    paths = [PurePosixPath(name.lower()) for name in names]
    texts = [p for p in paths if p.suffix == ".txt"]
    classes = any(p.name == _CLASSES or p.suffix in (".yaml", ".yml") for p in paths)
    return bool(texts) and (classes or any("labels" in p.parent.parts for p in texts))


def read_notes(path: Path) -> BoxNotes:
    """The notes in a folder or container, and those beside a container."""
    if path.is_file() and path.suffix.lower() in IMAGES:
        return BoxNotes()
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _read(path: Path, _changed: int) -> BoxNotes:
    """Kept, since every range of a source asks for them."""
    found, texts, others = BoxNotes(), dict[str, bytes](), dict[str, bytes]()
    classes: dict[str, list[str]] = {}
    for item in notes(path, _KINDS):
        if isinstance(item, Bad):
            found.bad.append(item)
            continue
        name, content = item[0].removeprefix("./"), item[1]
        kind, plain = PurePosixPath(name).suffix.lower(), PurePosixPath(name).name.lower()
        if kind == ".xml" and b"<annotation" in content[:1000]:
            _voc(name, content, found)
        elif kind == ".json" and plain.startswith(_OTHERS):
            others[name] = content
        elif kind == ".json":
            _coco(name, content, found)
        elif kind in (".yaml", ".yml") or plain == _CLASSES:
            classes |= _class_names(name, content, found)
            if len({tuple(names) for names in classes.values()}) > 1:
                found.bad.append(Bad(name, f"names other classes than {next(iter(classes))}"))
        elif "imagesets" in name.lower() and (split := part_of(f"{PurePosixPath(name).stem}/x")):
            lines = content.decode(errors="replace").splitlines()
            found.parts |= dict.fromkeys((line.split()[0] for line in lines if line.strip()), split)
        elif kind == ".txt":
            texts[name] = content
    for name, content in others.items():
        if not found.boxes:  # notes on all classes were not there
            _coco(name, content, found)
    for name, content in texts.items():
        _yolo(name, content, classes, found)
    return found


def _voc(name: str, content: bytes, found: BoxNotes) -> None:
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
    stem = PurePosixPath(name).stem
    found.boxes[stem], found.told[stem] = boxes, name


def _coco(name: str, content: bytes, found: BoxNotes) -> None:
    """The boxes of all pictures in COCO's JSON (Lin et al. 2014): [x, y, width, height]."""
    orphans = []
    try:
        about = json.loads(content)
        if not isinstance(about, dict) or not {"images", "annotations"} <= about.keys():
            return
        if about["annotations"] and not any("bbox" in one for one in about["annotations"]):
            return  # captions, or the like
        names = {c["id"]: str(c["name"]) for c in about.get("categories", [])}
        files = {i["id"]: str(i["file_name"]) for i in about["images"]}
        boxes: dict[str, list[Boxes]] = {PurePosixPath(file).stem: [] for file in files.values()}
        for number, one in enumerate(about["annotations"], start=1):
            if one.get("iscrowd"):  # a region of many things, which no box outlines
                continue
            x, y, width, height = map(float, one["bbox"])
            if (kind := one["category_id"]) not in names:
                raise ValueError(f"no category {kind!r} among those of the file")
            if one["image_id"] not in files:
                orphans.append(Bad(f"{name}: annotation {number}", ORPHAN))
                continue
            stem = PurePosixPath(files[one["image_id"]]).stem
            boxes[stem].append(_box(names[kind], x, y, x + width, y + height))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        found.bad.append(Bad(name, f"broken annotations ({type(error).__name__}: {error})"[:200]))
        return
    found.boxes |= boxes
    found.orphans += orphans
    found.told |= {PurePosixPath(file).stem: file for file in files.values()}
    if split := part_of(f"{PurePosixPath(name).stem.rpartition('_')[2]}/x"):
        found.named |= dict.fromkeys(boxes, split)


def _class_names(name: str, content: bytes, found: BoxNotes) -> dict[str, list[str]]:
    """The classes that a ``data.yaml`` or ``classes.txt`` names in order, under its name."""
    if name.lower().endswith(_CLASSES):
        lines = content.decode(errors="replace").splitlines()
        return {name: [line.strip() for line in lines if line.strip()]}
    if b"names" not in content:
        return {}
    import yaml  # noqa: PLC0415 - slow to import

    try:
        about = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        found.bad.append(Bad(name, "broken YAML"))
        return {}
    said = about.get("names") if isinstance(about, dict) else None
    if isinstance(said, dict) and sorted(said, key=str) != sorted(range(len(said)), key=str):
        found.bad.append(Bad(name, "names: the classes are not numbered 0, 1, 2, ..."))
        return {}
    if isinstance(said, dict):
        said = [said[i] for i in range(len(said))]
    return {name: [str(one) for one in said]} if isinstance(said, list) else {}


def _yolo(name: str, content: bytes, classes: dict[str, list[str]], found: BoxNotes) -> None:
    """The boxes of one picture in YOLO's text: class, centre x, centre y, width, height a line.

    The class is a number, which the file of classes names; where there is none it stays one.
    """
    lines = content.decode(errors="replace").split("\n")
    first = next((line.split()[0] for line in lines if line.strip()), "0")
    of_label = "labels" in PurePosixPath(name.lower()).parent.parts
    if not (of_label or classes) or not first.removeprefix("-").replace(".", "", 1).isdecimal():
        return  # a caption, or another text
    boxes: list[_Share] = []
    source, names = next(iter(classes.items()), ("", []))
    for number, line in enumerate(lines, start=1):
        if not (fields := line.split()):
            continue
        try:
            kind, x, y, width, height = _line(fields)
            if names and kind >= len(names):
                raise ValueError(f"class {kind}, and {source} names 0 to {len(names) - 1}")
        except ValueError as error:
            found.bad.append(Bad(f"{name}: line {number}", str(error)))
            continue
        boxes.append((names[kind] if names else str(kind), x, y, width, height))
    found.shares[place(name)], found.told[place(name)] = boxes, name


def _line(fields: Sequence[str]) -> tuple[int, float, float, float, float]:
    """A line of YOLO.

    Raises:
        ValueError: it is none; the message says why and what is meant.
    """
    if len(fields) != 1 + len(_SIDES):
        raise ValueError(f"{len(fields)} fields; {_MEANT}")
    if not fields[0].isdecimal():
        raise ValueError(f"class {fields[0][:20]!r} is no number; {_MEANT}")
    values = []
    for what, text in zip(_SIDES, fields[1:], strict=True):
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"{what} {text[:20]!r} is no number; {_MEANT}") from None
        if not 0 <= value <= 1:
            raise ValueError(f"{what} {text[:20]} is not in 0..1; {_MEANT}")
        values.append(value)
    x, y, width, height = values
    return int(fields[0]), x, y, width, height


def _box(label: str, x0: float, y0: float, x1: float, y1: float) -> Boxes:
    return {"label": label, "x0": x0, "y0": y0, "x1": x1, "y1": y1}
