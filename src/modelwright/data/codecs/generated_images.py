"""Images to be made: a label may be given, the picture is learned.

Pictures are brought to one size and stored as bytes; in a batch every channel is scaled from
0..255 to -1..1, the same for every data set, so that noise of deviation 1 covers it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from modelwright.data import labels as label_sets
from modelwright.data.codecs import images
from modelwright.data.picture_settings import ImageSettings
from modelwright.errors import ModelwrightError
from modelwright.types import Columns, Encoded, Example, Image, ImageFile, Label, Turn


class Codec:
    """The label set, empty where pictures have none, and how pictures are prepared.

    ``shape`` is (height, width) of grey pictures, (height, width, 3) of coloured ones.
    """

    ragged: tuple[str, ...] = ()
    views: ClassVar[tuple[str, tuple[str, ...]]] = (
        "features",
        ("image",),
    )  # a mixture of two is no picture

    def __init__(self, labels: list[str], settings: ImageSettings) -> None:
        self.labels, self.settings = labels, settings
        self._pictures = images.Codec(labels, settings)
        self.shape, self.features = self._pictures.shape, self._pictures.features

    @classmethod
    def fit(
        cls,
        examples: Iterable[Example],
        *,
        size: int | tuple[int, int] | None = None,
        resize: Literal["crop", "stretch"] = "crop",
        resample: images.Resample = "bilinear",
        channels: Literal[1, 3] | None = None,
    ) -> Codec:
        """Learn labels, size and channels from the ``examples`` of the train split.

        Args:
            examples: each with one picture, and a Label that is given or none.
            size: side, or height and width, of what is made; left out: that of the pictures,
                which must all have the same then.
            resize: "crop": the shorter side is brought to ``size`` and the middle is cut out;
                "stretch": both sides are brought to ``size``.
            resample: Pillow's filter.
            channels: 1 or 3; left out: 1 where all pictures are grey.
        """
        kept = list(examples)
        names = {n for e in kept if (n := _label(e)) is not None}
        if len(names) == 1:
            raise ModelwrightError(
                f"labels: every picture is of the class {names.pop()!r}, so there is none to"
                " choose; set train.options.label to '' to generate without classes"
            )
        settings = images.fitted_settings(
            kept, size=size, resize=resize, resample=resample, channels=channels
        )
        half = (0.5,) * settings.channels
        settings = dataclasses.replace(settings, mean=half, deviation=half)
        return cls(label_sets.label_set(names) if names else [], settings)

    def encode(self, example: Example) -> Encoded:
        """``features`` of the codec's shape, uint8, and ``label`` (), int64, -1 for none.

        A question, an example without a picture, has black pixels.

        Raises:
            ModelwrightError: a picture that cannot be read, or an unknown label.
        """
        name = _label(example)
        number = label_sets.UNKNOWN if name is None else label_sets.numbered(name, self.labels)
        drawn = any(isinstance(p, Image | ImageFile) for t in example.turns for p in t.parts)
        seen = self._pictures.seen(example) if drawn else np.zeros(self.shape, np.uint8)
        return {"features": seen, "label": np.array(number, dtype=np.int64)}

    def example(self, encoded: Encoded) -> Example:
        """The example that ``encode`` was given, its picture at the codec's size."""
        number = int(encoded["label"])
        given = () if number < 0 else (Turn("user", (Label(self.labels[number]),)),)
        image = Image(np.asarray(encoded["features"]), prepared=True)
        return Example((*given, Turn("assistant", (image,), learn=True)))

    def tensors(self, columns: Columns) -> dict[str, Tensor]:
        """``features`` (B, *shape) float32 in -1..1, and ``label`` (B,) int64."""
        return self._pictures.tensors(columns)

    def pictures(self, features: Tensor) -> NDArray[np.uint8]:
        """The inverse of ``tensors``: features (B, *shape) to pixels uint8, cut to 0..255."""
        mean, deviation = self._pictures.scale
        pixels = features.detach().float().cpu() * deviation + mean
        found: NDArray[np.uint8] = pixels.round_().clamp_(0, 255).numpy().astype(np.uint8)
        return found

    def save(self) -> dict[str, bytes]:
        """``generated_images.json``."""
        facts = {"labels": self.labels, "settings": dataclasses.asdict(self.settings)}
        return {"generated_images.json": json.dumps(facts, sort_keys=True).encode()}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Codec:
        """Read what ``save`` wrote."""
        facts: dict[str, Any] = json.loads(files["generated_images.json"])
        found = facts["settings"]
        for name in ("mean", "deviation", "stretched"):
            found[name] = None if found[name] is None else tuple(found[name])
        return cls(facts["labels"], ImageSettings(**found))


def _label(example: Example) -> str | None:
    """The label that is given, if any."""
    given = (p.name for t in example.turns for p in t.parts if isinstance(p, Label))
    return next(given, None)
