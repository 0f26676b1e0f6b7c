"""Images: one picture and one label; stored as bytes at the size that the model sees.

Pictures come as arrays or as files of any size. They are turned upright, brought to one size and
number of channels once, when they are stored; the scale (x - mean) / deviation of every channel is
applied to the batch.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from modelwright.data import labels as label_sets
from modelwright.data.moments import Moments
from modelwright.data.picture_settings import ImageSettings, prepared
from modelwright.data.pictures import OutOfRange, Undecodable, decode, measured
from modelwright.errors import ModelwrightError
from modelwright.types import Array, Columns, Encoded, Example, Image, ImageFile, RawInput

SAMPLED = 1024  # pictures of the train split, evenly chosen, whose mean and deviation are taken
Resample = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]


class Codec(label_sets.Labelled):
    """The label set, and how pictures are brought to what the model sees.

    ``shape`` is (height, width) of grey pictures, (height, width, 3) of coloured ones; ``scale``
    is mean and deviation of every channel in units of bytes. ``stored`` is the shorter side of a
    second, larger picture that rows to learn from keep for ``resized_crop``; 0: there is none.
    """

    ragged: tuple[str, ...] = ()
    views: ClassVar[tuple[str, tuple[str, ...]]] = ("features", ("image", "mix"))

    def __init__(self, labels: list[str], settings: ImageSettings, stored: int = 0) -> None:
        self.labels, self.settings, self.stored = labels, settings, stored
        size = (settings.height, settings.width)
        self.shape: tuple[int, ...] = size if settings.channels == 1 else (*size, 3)
        self.features: int = math.prod(self.shape)
        least = min(size)
        if stored and stored <= least:
            raise ModelwrightError(
                f"codec.stored: {stored} pixels are not more than the {least} that the model sees;"
                " give more, or leave it out"
            )
        self._larger = resized(settings, _scaled(size, stored / least)) if stored else None
        scale, grey = settings.scale, settings.channels == 1
        # In units of bytes: (scale b - mean) / deviation = (b - mean / scale) / (deviation / scale)
        self.scale = tuple(
            torch.tensor(v[0] if grey else v, dtype=torch.float64).div(scale).float()
            for v in (settings.mean, settings.deviation)
        )

    @classmethod
    def fit(
        cls,
        examples: Iterable[Example],
        *,
        size: int | tuple[int, int] | None = None,
        resize: Literal["crop", "stretch"] = "crop",
        shortest: int | None = None,
        resample: Resample = "bilinear",
        channels: Literal[1, 3] | None = None,
        mean: tuple[float, ...] | None = None,
        deviation: tuple[float, ...] | None = None,
        stored: Annotated[int, Field(ge=0)] = 0,
    ) -> Codec:
        """Learn labels, channels and scale from the ``examples`` of the train split.

        Args:
            examples: each with one picture to read and a Label to learn.
            size: side, or height and width, of what the model sees; left out: that of the
                pictures, which must all have the same then.
            resize: "crop": the shorter side is brought to ``shortest`` and the middle is cut
                out; "stretch": both sides are brought to ``size``, as they are where the pictures
                are not square and ``size`` is left out.
            shortest: the shorter side before the cut; left out: as ``size`` needs.
            resample: Pillow's filter.
            channels: 1 or 3; left out: 1 where all pictures are grey.
            mean: of every channel, of pixels scaled to 0..1; left out: of the train split.
            deviation: as ``mean``.
            stored: the shorter side, pixels, at which pictures to learn from are kept a second
                time, to cut parts from by ``resized_crop``; 0: they are cut from what is seen.
        """
        kept = list(examples)
        labels = label_sets.label_set(n for e in kept if (n := label_sets.label_of(e)) is not None)
        settings = fitted_settings(
            kept,
            size=size,
            resize=resize,
            shortest=shortest,
            resample=resample,
            channels=channels,
            mean=mean,
            deviation=deviation,
        )
        return cls(labels, settings, stored)

    @classmethod
    def around(
        cls,
        settings: ImageSettings,
        examples: Iterable[Example],
        *,
        size: int | tuple[int, int] | None = None,
        resample: Resample | None = None,
        mean: tuple[float, ...] | None = None,
        deviation: tuple[float, ...] | None = None,
        stored: Annotated[int, Field(ge=0)] = 0,
    ) -> Codec:
        """The codec of a published model: its settings, and the labels of the train split.

        Args:
            settings: as published.
            examples: of the train split.
            size: replaces the published size; what is cut away keeps its share.
            resample: replaces the published filter.
            mean: replaces the published one.
            deviation: replaces the published one.
            stored: as for ``fit``.
        """
        labels = label_sets.label_set(
            n for e in examples if (n := label_sets.label_of(e)) is not None
        )
        if size is not None:
            settings = resized(settings, (size, size) if isinstance(size, int) else size)
        return cls(
            labels,
            dataclasses.replace(
                settings,
                resample=resample or settings.resample,
                mean=mean or settings.mean,
                deviation=deviation or settings.deviation,
            ),
            stored,
        )

    def encode(self, example: Example) -> Encoded:
        """``features`` of the codec's shape, uint8, and ``label`` (), int64.

        A question, an example without a turn to learn, has the label -1; others have ``larger``,
        too, where the codec keeps larger pictures: of the same part of the picture, uint8.

        Raises:
            ModelwrightError: a picture that cannot be read, or an unknown label.
        """
        number = np.array(label_sets.label_number(example, self.labels), dtype=np.int64)
        found = {"features": self.seen(example), "label": number}
        if self._larger is None or number < 0:
            return found
        return {**found, "larger": prepared(pixels_of(picture(example)), self._larger)}

    def seen(self, example: Example) -> Array:
        """The picture of an example as the model sees it but for the scale: uint8, ``shape``."""
        part = picture(example)
        if isinstance(part, Image) and part.prepared and part.pixels.shape == self.shape:
            return part.pixels
        return prepared(pixels_of(part), self.settings)

    def example(self, encoded: Encoded) -> Example:
        """The example that ``encode`` was given, its picture at the codec's size."""
        image = Image(np.asarray(encoded["features"]), prepared=True)
        return label_sets.turns(image, int(encoded["label"]), self.labels)

    def tensors(self, columns: Columns) -> dict[str, Tensor]:
        """``features`` (B, *shape) float32, scaled, and ``label`` (B,) int64."""
        return self.scaled(columns, *self.scale)

    def front(self) -> Front:
        """What ``tensors`` does, for exported graphs."""
        return Front(self)

    def save(self) -> dict[str, bytes]:
        """``images.json``."""
        facts: dict[str, Any] = {
            "labels": self.labels,
            "settings": dataclasses.asdict(self.settings),
        }
        facts |= {"stored": self.stored} if self.stored else {}
        return {"images.json": json.dumps(facts, sort_keys=True).encode()}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Codec:
        """Read what ``save`` wrote."""
        facts = json.loads(files["images.json"])
        found = facts["settings"]
        for name in ("mean", "deviation", "stretched"):
            found[name] = None if found[name] is None else tuple(found[name])
        return cls(facts["labels"], ImageSettings(**found), facts.get("stored", 0))


class Front(nn.Module):
    """Pictures (B, *shape) of the model's size to scaled numbers; see ``types.Front``."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.codec = codec
        # What is to be done before: turned upright, resized and cut as these say, by Pillow.
        self.facts: dict[str, Any] = {"pictures": dataclasses.asdict(codec.settings)}
        about = "upright pixels 0..255 of this size; scaled in the graph: (x - mean) / deviation"
        self.reads = (RawInput("features", torch.uint8, ("batch", *codec.shape), about),)
        for name, values in zip(("mean", "deviation"), codec.scale, strict=True):
            self.register_buffer(name, values.clone())

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """``features`` (B, *shape) float32, scaled."""
        mean, deviation = self.get_buffer("mean"), self.get_buffer("deviation")
        return {"features": (features.to(torch.float32) - mean) / deviation}

    def raw(self, example: Example) -> dict[str, Array]:
        """The picture, decoded and resized, as a batch of one."""
        return {"features": self.codec.seen(example)[None]}


def fitted_settings(
    examples: Sequence[Example],
    *,
    size: int | tuple[int, int] | None = None,
    resize: Literal["crop", "stretch"] = "crop",
    shortest: int | None = None,
    resample: Resample = "bilinear",
    channels: Literal[1, 3] | None = None,
    mean: tuple[float, ...] | None = None,
    deviation: tuple[float, ...] | None = None,
) -> ImageSettings:
    """How the pictures of the ``examples`` are prepared; the options are those of ``Codec.fit``.

    Raises:
        ModelwrightError: sizes differ and none was given, or a picture cannot be read.
    """
    parts = [picture(example) for example in examples]
    as_is = size is None
    if size is None or channels is None:
        found, grey = surveyed(parts, wanted=size is None)
        size, channels = size or found, channels or (1 if grey else 3)
    height, width = (size, size) if isinstance(size, int) else size
    if as_is and shortest is None and height != width:
        resize = "stretch"  # the train pictures are left as they are
    if resize == "crop" and shortest is None:
        shortest = max(height, width)
    for name, values in (("mean", mean), ("deviation", deviation)):
        if values is not None and len(values) != channels:
            raise ModelwrightError(
                f"codec.{name}: {len(values)} numbers for pictures of {channels} channels;"
                " give one for each"
            )
    settings = ImageSettings(
        height,
        width,
        shortest=shortest if resize == "crop" else None,
        resample=resample,
        mean=mean or (0.0,) * channels,
        deviation=deviation or (1.0,) * channels,
    )
    if mean is None or deviation is None:
        fitted = moments(parts, settings)
        settings = dataclasses.replace(
            settings, mean=mean or fitted[0], deviation=deviation or fitted[1]
        )
    return settings


def resized(settings: ImageSettings, size: tuple[int, int]) -> ImageSettings:
    """The settings for another size, with the same share cut away at the edges."""
    height, width = size
    more = max(height / settings.height, width / settings.width)
    stretched = settings.stretched
    if stretched is not None:
        stretched = (
            max(height, round(stretched[0] * height / settings.height)),
            max(width, round(stretched[1] * width / settings.width)),
        )
    shortest = settings.shortest
    if shortest is not None:
        shortest = max(height, width, round(shortest * more))
    rest = {k: v for k, v in settings.rest.items() if k != "crop_pct"}
    return dataclasses.replace(
        settings, height=height, width=width, shortest=shortest, stretched=stretched, rest=rest
    )


def _scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    height, width = (round(side * factor) for side in size)
    return height, width


def picture(example: Example) -> Image | ImageFile:
    """The only picture."""
    found = [p for t in example.turns for p in t.parts if isinstance(p, Image | ImageFile)]
    if len(found) != 1:
        raise ModelwrightError(
            f"codec images: an example has {len(found)} pictures, exactly one is meant"
        )
    return found[0]


def pixels_of(part: Image | ImageFile) -> Array:
    """Upright pixels uint8, (H, W) or (H, W, 3)."""
    if isinstance(part, ImageFile):
        try:
            return decode(part.content, upright=True)[0]
        except OutOfRange as error:
            raise ModelwrightError(f"{part.name}: {error}") from error
        except Undecodable as error:
            raise ModelwrightError(
                f"{part.name}: {error}; give a whole picture (JPEG, PNG, WebP, GIF, BMP, TIFF)"
            ) from error
    pixels = np.asarray(part.pixels)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise ModelwrightError(
            f"codec images: an array of {pixels.dtype} and shape {pixels.shape}; pixels are bytes"
            " 0..255 of shape (height, width) or (height, width, 3); for other numbers take the"
            " task vector_classification"
        )
    if not pixels.size:
        raise ModelwrightError("codec images: a picture without pixels; remove its row")
    return pixels


def _name(part: Image | ImageFile, number: int) -> str:
    return part.name if isinstance(part, ImageFile) else f"picture {number + 1}"


def surveyed(parts: Sequence[Image | ImageFile], *, wanted: bool) -> tuple[tuple[int, int], bool]:
    """The one size of all pictures, and whether all are grey; of files the header is read.

    Raises:
        ModelwrightError: sizes differ and one is ``wanted``, or a picture cannot be read.
    """
    first, grey = (0, 0), True
    for i, part in enumerate(parts):
        if isinstance(part, ImageFile):
            try:
                height, width, plain = measured(part.content)
            except Undecodable as error:
                raise ModelwrightError(f"{part.name}: {error}; remove or replace it") from error
        else:
            pixels = pixels_of(part)
            (height, width), plain = pixels.shape[:2], pixels.ndim == 2
        first, grey = first if i else (height, width), grey and plain
        if wanted and first != (height, width):
            raise ModelwrightError(
                f"codec.size: pictures of two sizes, {_name(parts[0], 0)} has"
                f" {first[0]} x {first[1]} and {_name(part, i)} {height} x {width}; give the one"
                " that the model shall see, such as 224"
            )
    return first, grey


def moments(
    parts: Sequence[Image | ImageFile], settings: ImageSettings
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of every channel, scaled, over some pictures evenly chosen."""
    gathered = Moments()
    count = min(SAMPLED, len(parts))
    for i in range(count):
        pixels = prepared(pixels_of(parts[i * len(parts) // count]), settings)
        gathered.add(pixels.reshape(-1, settings.channels) * settings.scale)
    mean, deviation = gathered.scale()
    return tuple(map(float, mean)), tuple(map(float, deviation))
