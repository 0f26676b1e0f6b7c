"""Images: folders a label, ImageNet's layout, boxes of VOC, COCO and YOLO, and tars of these."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from modelwright.data.box_notes import read_notes
from modelwright.data.media_types import IMAGES
from modelwright.data.operations.operation import WorkRow
from modelwright.data.readers.reader import Bad, Range, new_row
from modelwright.data.tree import cut_tree, label_of, sniffed


@dataclass(frozen=True)
class Reader:
    """Pictures.

    Attributes:
        labels: "folder" takes the folder a picture lies in, unless it has boxes or the folder's
            name is of no class ("images", "train", ...); "none" takes none.
    """

    version: ClassVar[int] = 2
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
        found = read_notes(path)
        if part.start == 0:
            yield from (*found.bad, *found.orphans)
        for item in sniffed(path, part, self.suffixes, "image", "an image"):
            if isinstance(item, Bad):
                yield item
                continue
            name, content, mime = item
            meta: dict[str, Any] = {}
            if split := found.part(name):
                meta["split"] = split
            if (boxes := found.of(name, content)) is not None:
                meta["boxes"] = boxes
            label = label_of(name) if self.labels == "folder" and boxes is None else None
            yield new_row(name, "image", media=content, mime=mime, label=label, meta=meta)
