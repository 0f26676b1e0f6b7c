"""Vectors: one array of fixed shape and one label; (x - mean) / deviation of the train split.

Values that are bytes in the train split (pixels) are stored as bytes and scaled batch by batch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors import numpy as safetensors
from torch import Tensor, nn

from modelwright.data import labels as label_sets
from modelwright.data.moments import Moments
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.types import Array, Columns, Encoded, Example, Frames, Image, RawInput

SCALES = ("auto", "feature", "global", "none")
_BLOCK = 1024  # examples whose moments are taken together


class Codec(label_sets.Labelled):
    """The shape, the label set and the scale of the train split.

    ``mean`` and ``deviation`` are float32, of the shape of an example or () where one pair is
    shared by all its values; ``bytes_only`` says that all values are whole numbers 0..255.
    """

    ragged: tuple[str, ...] = ()
    views: ClassVar[tuple[str, tuple[str, ...]]] = ("features", ("image", "mix"))

    def __init__(
        self,
        labels: list[str],
        shape: tuple[int, ...],
        mean: Array,
        deviation: Array,
        *,
        bytes_only: bool,
    ) -> None:
        self.labels, self.shape, self.bytes_only = labels, shape, bytes_only
        self.mean, self.deviation = mean, deviation
        self.features: int = math.prod(shape)
        self._scale = tuple(torch.from_numpy(np.array(a)) for a in (mean, deviation))

    @classmethod
    def fit(cls, examples: Iterable[Example], *, scale: str = "auto") -> Codec:
        """Learn labels, shape and scale from the ``examples`` of the train split.

        Args:
            examples: each with one Image or Frames part to read and a Label to learn.
            scale: mean and deviation of every "feature" apart, or "global" ones for all values,
                or "none"; "auto" is "global" for images, whose values share one unit, and
                "feature" for other arrays.
        """
        if scale not in SCALES:
            hint = did_you_mean(scale, SCALES)
            raise ModelwrightError(
                f"codec vectors: no scale {scale!r}{hint}; known: {', '.join(SCALES)}"
            )
        names: set[str] = set()
        moments = Moments()
        shape: tuple[int, ...] = ()
        bytes_only = image = True
        left = iter(examples)
        while block := list(islice(left, _BLOCK)):
            values = [_array(example) for example in block]
            shape = shape or values[0].shape
            for value in values:
                _check_shape(value, shape)
            names.update(n for e in block if (n := label_sets.label_of(e)) is not None)
            image = image and _is_image(block[0])
            bytes_only = bytes_only and all(v.dtype == np.uint8 for v in values)
            moments.add(np.stack(values))
        labels = label_sets.label_set(names)
        mean, deviation = np.zeros((), np.float32), np.ones((), np.float32)
        if scale == "feature" or (scale == "auto" and not image):
            mean, deviation = moments.scale()
        elif scale != "none":
            mean, deviation = moments.pooled().scale()
        return cls(labels, shape, mean, deviation, bytes_only=bytes_only)

    def encode(self, example: Example) -> Encoded:
        """``features`` of the codec's shape, uint8 or float32, and ``label`` (), int64.

        A question, an example without a turn to learn, has the label -1.

        Raises:
            ModelwrightError: another shape, a value that cannot be, or an unknown label.
        """
        values = _array(example)
        _check_shape(values, self.shape)
        if self.bytes_only and values.dtype != np.uint8:
            whole = values.astype(np.uint8)
            if not np.array_equal(whole, values):
                raise ModelwrightError(
                    "features: the model was trained on whole numbers 0..255, this example has"
                    " others; give pixels in the same units"
                )
            values = whole
        number = np.array(label_sets.label_number(example, self.labels), dtype=np.int64)
        return {
            "features": values if self.bytes_only else values.astype(np.float32),
            "label": number,
        }

    def example(self, encoded: Encoded) -> Example:
        """The example that ``encode`` was given, its array as an Image."""
        image = Image(np.asarray(encoded["features"]))
        return label_sets.turns(image, int(encoded["label"]), self.labels)

    def tensors(self, columns: Columns) -> dict[str, Tensor]:
        """``features`` (B, *shape) float32, scaled, and ``label`` (B,) int64."""
        return self.scaled(columns, *self._scale)

    def front(self) -> Front:
        """What ``tensors`` does, for exported graphs."""
        return Front(self)

    def save(self) -> dict[str, bytes]:
        """``vectors.json`` and ``scale.safetensors``."""
        facts = {"labels": self.labels, "shape": self.shape, "bytes_only": self.bytes_only}
        scale = {"mean": self.mean, "deviation": self.deviation}
        return {
            "vectors.json": json.dumps(facts).encode(),
            "scale.safetensors": safetensors.save(scale),
        }

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Codec:
        """Read what ``save`` wrote."""
        facts = json.loads(files["vectors.json"])
        return cls(
            facts["labels"],
            tuple(facts["shape"]),
            **safetensors.load(files["scale.safetensors"]),
            bytes_only=facts["bytes_only"],
        )


class Front(nn.Module):
    """Raw features (B, *shape) to scaled ones; see ``types.Front``."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.facts: dict[str, Any] = {}
        dtype = torch.uint8 if codec.bytes_only else torch.float32
        units = "whole numbers 0..255" if codec.bytes_only else "in the units of the data"
        about = f"as they are, {units}; scaled in the graph: (x - mean) / deviation"
        self.reads = (RawInput("features", dtype, ("batch", *codec.shape), about),)
        self.register_buffer("mean", torch.from_numpy(np.array(codec.mean)))
        self.register_buffer("deviation", torch.from_numpy(np.array(codec.deviation)))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """``features`` (B, *shape) float32, scaled."""
        mean, deviation = self.get_buffer("mean"), self.get_buffer("deviation")
        return {"features": (features.to(torch.float32) - mean) / deviation}

    def raw(self, example: Example) -> dict[str, Array]:
        """The array of the example as a batch of one."""
        whole = self.reads[0].dtype == torch.uint8
        return {"features": _array(example).astype(np.uint8 if whole else np.float32)[None]}


def _is_image(example: Example) -> bool:
    return any(isinstance(part, Image) for turn in example.turns for part in turn.parts)


def _array(example: Example) -> Array:
    """The values of the only Image or Frames part, finite numbers."""
    found = [
        part.pixels if isinstance(part, Image) else part.frames
        for turn in example.turns
        for part in turn.parts
        if isinstance(part, Image | Frames)
    ]
    if len(found) != 1:
        raise ModelwrightError(
            f"codec vectors: an example has {len(found)} arrays, exactly one is meant"
        )
    values = np.asarray(found[0])
    if values.dtype.kind not in "fiub" or not values.size:
        raise ModelwrightError(
            f"codec vectors: an array of {values.dtype} and shape {values.shape};"
            " numbers are meant, at least one"
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ModelwrightError("codec vectors: an array holds NaN or infinity; repair or remove it")
    return values


def _check_shape(values: Array, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise ModelwrightError(
            f"codec vectors: an example of shape {values.shape}, the first one of the train split"
            f" has {shape}; give all the same shape, or use the task 'sequence_classification'"
        )
