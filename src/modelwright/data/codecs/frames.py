"""Frames: sequences of feature vectors of any length, and one label.

Every feature is scaled as (x - mean) / deviation over all frames of the train split.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors import numpy as safetensors
from torch import Tensor, nn

from modelwright.data import labels as label_sets
from modelwright.data.moments import Moments
from modelwright.errors import ModelwrightError
from modelwright.types import Array, Columns, Encoded, Example, Frames, Ragged, RawInput


class Codec(label_sets.Labelled):
    """The width of a frame, the label set and the scale of the train split.

    ``mean`` and ``deviation`` are float32 (features,); ``mean_length`` is in frames.
    """

    ragged = ("frames",)
    views: ClassVar[tuple[str, tuple[str, ...]]] = ("frames", ("frames",))

    def __init__(
        self, labels: list[str], mean: Array, deviation: Array, *, mean_length: float
    ) -> None:
        self.labels, self.mean, self.deviation = labels, mean, deviation
        self.mean_length = mean_length
        self.features: int = len(mean)

    @classmethod
    def fit(cls, examples: Iterable[Example]) -> Codec:
        """Learn labels and scale from the ``examples`` of the train split."""
        names: set[str] = set()
        moments = Moments()
        count = 0
        for example in examples:
            frames = _frames(example)
            if count:
                _check_width(frames, moments.mean.size)
            moments.add(frames)
            count += 1
            name = label_sets.label_of(example)
            if name is not None:
                names.add(name)
        labels = label_sets.label_set(names)
        return cls(labels, *moments.scale(), mean_length=moments.count / count)

    def encode(self, example: Example) -> Encoded:
        """``frames`` (T, features) float32, and ``label`` (), int64.

        A question, an example without a turn to learn, has the label -1.

        Raises:
            ModelwrightError: frames of another width, or an unknown label.
        """
        frames = _frames(example)
        _check_width(frames, self.features)
        number = np.array(label_sets.label_number(example, self.labels), dtype=np.int64)
        return {"frames": frames.astype(np.float32), "label": number}

    def example(self, encoded: Encoded) -> Example:
        """The example that ``encode`` was given."""
        frames = Frames(np.asarray(encoded["frames"]))
        return label_sets.turns(frames, int(encoded["label"]), self.labels)

    def tensors(self, columns: Columns) -> dict[str, Tensor]:
        """``frames`` (B, T, features) scaled and padded with 0; ``lengths`` and ``label`` (B,)."""
        stored = columns["frames"]
        if not isinstance(stored, Ragged):
            raise TypeError("frames are stored as a ragged column")
        lengths = stored.lengths
        longest = int(lengths.max())
        padded = np.zeros((len(stored), longest, self.features), dtype=np.float32)
        padded[np.arange(longest) < lengths[:, None]] = (stored.values - self.mean) / self.deviation
        return {
            "frames": torch.from_numpy(padded),
            "lengths": torch.from_numpy(lengths),
            "label": torch.from_numpy(np.array(columns["label"], dtype=np.int64)),
        }

    def front(self) -> Front:
        """What ``tensors`` does, for exported graphs."""
        return Front(self)

    def save(self) -> dict[str, bytes]:
        """``frames.json`` and ``scale.safetensors``."""
        facts = {"labels": self.labels, "mean_length": self.mean_length}
        scale = {"mean": self.mean, "deviation": self.deviation}
        return {
            "frames.json": json.dumps(facts).encode(),
            "scale.safetensors": safetensors.save(scale),
        }

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Codec:
        """Read what ``save`` wrote."""
        facts = json.loads(files["frames.json"])
        scale = safetensors.load(files["scale.safetensors"])
        return cls(facts["labels"], **scale, mean_length=facts["mean_length"])


class Front(nn.Module):
    """Raw frames (B, T, features) of ``lengths`` (B,) to scaled ones; see ``types.Front``."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.facts: dict[str, Any] = {"pad": 0}
        about = "as they are, in the units of the data; scaled in the graph: (x - mean) / deviation"
        shape = ("batch", "time", codec.features)
        self.reads = (
            RawInput("frames", torch.float32, shape, about),
            RawInput("lengths", torch.int64, ("batch",), "true frames of each row, at least 1"),
        )
        self.register_buffer("mean", torch.from_numpy(np.array(codec.mean)))
        self.register_buffer("deviation", torch.from_numpy(np.array(codec.deviation)))

    def forward(self, frames: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """``frames`` scaled, 0 where a row has ended; ``lengths``."""
        scaled = (frames - self.get_buffer("mean")) / self.get_buffer("deviation")
        true = torch.arange(frames.shape[1], device=frames.device) < lengths[:, None]
        return {"frames": scaled.where(true[..., None], 0.0), "lengths": lengths}

    def raw(self, example: Example) -> dict[str, Array]:
        """The frames of the example as a batch of one."""
        frames = _frames(example).astype(np.float32)[None]
        return {"frames": frames, "lengths": np.array([frames.shape[1]], dtype=np.int64)}


def _frames(example: Example) -> Array:
    """The frames of the only Frames part, finite numbers (time, features), time >= 1."""
    found = [p.frames for t in example.turns for p in t.parts if isinstance(p, Frames)]
    if len(found) != 1:
        raise ModelwrightError(
            f"codec frames: an example has {len(found)} sequences, exactly one is meant"
        )
    frames = np.asarray(found[0])
    if frames.ndim != 2 or 0 in frames.shape or frames.dtype.kind not in "fiub":
        raise ModelwrightError(
            f"codec frames: a sequence of {frames.dtype} and shape {frames.shape}; numbers of"
            " shape (time, features) are meant, at least one of each"
        )
    if frames.dtype.kind == "f" and not np.isfinite(frames).all():
        raise ModelwrightError(
            "codec frames: a sequence holds NaN or infinity; repair or remove it"
        )
    return frames


def _check_width(frames: Array, features: int) -> None:
    if frames.shape[1] != features:
        raise ModelwrightError(
            f"codec frames: a sequence with {frames.shape[1]} features a frame, the train split"
            f" has {features}; give all the same features"
        )
