"""Decode every image whole; drop what is damaged, too small, too narrow, or blurred.

Rows of another modality pass. Attributes: images.width, images.height, images.format,
images.aspect (longer side by shorter), images.sharpness (variance of the Laplacian) and
images.phash, 16 hexadecimal digits: duplicates differ in few of its 64 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from modelwright.data import pictures
from modelwright.data.operations.operation import Step, WorkRow


@dataclass(frozen=True)
class Operation:
    """Checks of images.

    Attributes:
        shortest: least pixels of the shorter side.
        longest: most pixels of the longer side; 0 for any.
        aspect: largest ratio of longer to shorter side; 0 for any.
        sharpness: least variance of the Laplacian, in squared levels of 0..255; 100 is a
            customary one for photographs, 0 keeps all.
        pixels: more than these are not unpacked.
        hash: which perceptual hash is written; "none" for neither.
    """

    version: ClassVar[int] = 2

    shortest: Annotated[int, Field(ge=1)] = 1
    longest: Annotated[int, Field(ge=0)] = 0
    aspect: Annotated[float, Field(ge=0)] = 0.0
    sharpness: Annotated[float, Field(ge=0)] = 0.0
    pixels: Annotated[int, Field(ge=1)] = pictures.PIXELS
    hash: Literal["phash", "dhash", "none"] = "phash"

    def assets(self) -> dict[str, str]:
        """Nothing beside the row is read."""
        return {}

    def limits(self) -> dict[str, list[float]]:
        """Where the step decides, of the limits that are set."""
        sides = [float(self.shortest)] * (self.shortest > 1) + [float(self.longest)] * bool(
            self.longest
        )
        found = {"images.width": sides, "images.height": sides, "images.aspect": [self.aspect]}
        found["images.sharpness"] = [self.sharpness]
        return {name: values for name, values in found.items() if any(values)}

    def begin(self) -> Step:
        """The check of one row."""
        pictures.pillow()
        return self._check

    def _check(self, row: WorkRow) -> str | None:
        if row.get("modality") != "image":
            return None
        if not row.get("media"):
            return "no image"
        try:
            found, kind = pictures.decode(row["media"], pixels=self.pixels)
        except pictures.OutOfRange as error:
            return str(error)
        except pictures.Undecodable as error:
            row["attributes"]["images.problem"] = str(error)
            limit = "limit" in str(error)
            return "more pixels than the limit" if limit else "image cannot be decoded"
        height, width = found.shape[:2]
        shorter, longer = sorted((height, width))
        measured = {
            "width": width,
            "height": height,
            "format": kind,
            "aspect": longer / shorter,
            "sharpness": pictures.sharpness(found),
        }
        if self.hash != "none":
            hashed = pictures.phash(found) if self.hash == "phash" else pictures.dhash(found)
            measured[self.hash] = f"{hashed:016x}"
        row["attributes"].update({f"images.{k}": v for k, v in measured.items()})
        if shorter < self.shortest or (self.longest and longer > self.longest):
            return "image too small" if shorter < self.shortest else "image too large"
        if self.aspect and longer > self.aspect * shorter:
            return "image too narrow"
        return "image blurred" if measured["sharpness"] < self.sharpness else None
