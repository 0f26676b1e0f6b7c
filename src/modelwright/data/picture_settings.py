"""How pictures are brought to what a model sees: size, cut, and the scale of every channel.

Resizing is Pillow's, with the filter that the settings name; the middle is cut out as
``transformers`` does it, so published models see here what they see there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwright.data.pictures import pillow
from modelwright.errors import ModelwrightError
from modelwright.types import Array

RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


@dataclass(frozen=True)
class ImageSettings:
    """Of pictures.

    Attributes:
        height, width: of what the model sees, pixels.
        shortest: the shorter side after resizing, before the middle is cut out; None: resized to
            ``stretched`` at once, whatever the shape.
        stretched: height and width after resizing, before the middle is cut out; None: height x
            width. Without meaning where ``shortest`` is given.
        resample: nearest, lanczos, bilinear, bicubic, box or hamming.
        scale: factor of the pixels' bytes, such as 1/255.
        mean, deviation: of every channel, after scaling: x = (scale * pixel - mean) / deviation.
        rest: other fields of a published file, as they were.

    Raises:
        ModelwrightError: the picture would be smaller than what is cut out of it.
    """

    height: int = 224
    width: int = 224
    shortest: int | None = None
    stretched: tuple[int, int] | None = None
    resample: str = "bilinear"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    deviation: tuple[float, ...] = (0.5, 0.5, 0.5)
    rest: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.resample not in RESAMPLING.values():
            raise ModelwrightError(
                f"resample: no filter {self.resample!r}; known: {', '.join(RESAMPLING.values())}"
            )
        high, wide = least = (self.shortest,) * 2 if self.shortest else self.resized_to
        if min(self.height, self.width) < 1 or least[0] < self.height or least[1] < self.width:
            raise ModelwrightError(
                f"size: {self.height} x {self.width} cannot be cut out of pictures resized to"
                f" {high} x {wide}; make that at least as large"
            )
        if len(self.mean) != len(self.deviation) or min(self.deviation, default=0) <= 0:
            raise ModelwrightError(
                f"mean and deviation: {list(self.mean)} and {list(self.deviation)}; one of each is"
                " meant for every channel, deviations above 0"
            )

    @property
    def resized_to(self) -> tuple[int, int]:
        """Height and width of pictures that are resized without regard to their shape."""
        return self.stretched or (self.height, self.width)

    @property
    def channels(self) -> int:
        """1 or 3."""
        return len(self.mean)


def prepared(pixels: Array, settings: ImageSettings) -> NDArray[np.uint8]:
    """Pixels uint8 (H, W) or (H, W, 3) as the model sees them: height x width, its channels.

    Colours become grey by the luma of ITU-R BT.601, grey becomes three equal channels.
    """
    module = pillow()
    image = module.fromarray(np.ascontiguousarray(pixels)).convert(
        "L" if settings.channels == 1 else "RGB"
    )
    height, width = settings.resized_to
    if (side := settings.shortest) is not None:
        longer = int(side * max(image.size) / min(image.size))
        height, width = (longer, side) if image.size[0] <= image.size[1] else (side, longer)
    if (width, height) != image.size:
        image = image.resize((width, height), module.Resampling[settings.resample.upper()])
    top, left = (height - settings.height) // 2, (width - settings.width) // 2
    found: NDArray[np.uint8] = np.asarray(image)
    return found[top : top + settings.height, left : left + settings.width]
