"""Sounds: one recording and one label, such as a spoken command.

The recording is stored as samples; what a model reads of it is made for each batch
(``data/hearing.py``), so that recordings can be changed in training.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from modelwright.data import labels as label_sets
from modelwright.data.hearing import Ear, Front, seconds_of
from modelwright.errors import ModelwrightError
from modelwright.types import Columns, Encoded, Example, Ragged, ragged_column

LONGEST = 10.0  # seconds


class Codec(label_sets.Labelled):
    """How recordings are heard, and the label set; ``longest`` is in seconds."""

    views: ClassVar[tuple[str, tuple[str, ...]]] = ("samples", ("sound", "frames"))
    ragged: tuple[str, ...] = ("samples",)

    def __init__(self, ear: Ear, labels: list[str], *, longest: float = LONGEST) -> None:
        self.ear, self.labels, self.longest = ear, labels, longest
        self.features = ear.settings.bins
        self.rate, self.mean_length = ear.settings.rate, ear.mean_length

    @classmethod
    def fit(
        cls,
        examples: Iterable[Example],
        *,
        rate: int = 16_000,
        bands: int = 80,
        highest: float | None = None,
        centred: bool = False,
        longest: float = LONGEST,
    ) -> Codec:
        """Learn labels and the scale of the frames from the ``examples`` of train.

        Args:
            examples: each with one recording and a label to learn.
            rate: samples a second to which every recording is brought.
            bands: mel bands of a frame.
            highest: upper edge of the last band in hertz; left out: half the rate.
            centred: recordings are brought to one loudness, and each band is less its mean over the
                recording, which takes away what microphone and room add: for strangers' voices.
            longest: seconds of a recording; rows of longer ones are dropped.
        """
        kept = [e for e in examples if seconds_of(e) <= longest]
        labels = label_sets.label_set(n for e in kept if (n := label_sets.label_of(e)) is not None)
        ear = Ear.fit(kept, rate=rate, bands=bands, highest=highest, centred=centred)
        return cls(ear, labels, longest=longest)

    def problem(self, example: Example) -> str:
        """Why an example cannot be learned from, or an empty string."""
        long = seconds_of(example) > self.longest
        return f"longer than codec.longest, {self.longest:g} s" if long else ""

    def encode(self, example: Example) -> Encoded:
        """``samples`` (n,) int16 and ``label`` (), int64; -1 of a question.

        Raises:
            ModelwrightError: no recording, one that is too long, or an unknown label.
        """
        if why := self.problem(example):
            raise ModelwrightError(f"a recording of {seconds_of(example):.1f} s: {why}; cut it")
        number = np.array(label_sets.label_number(example, self.labels), dtype=np.int64)
        return {"samples": self.ear.heard(example), "label": number}

    def example(self, encoded: Encoded) -> Example:
        """The example that ``encode`` was given, its recording at the codec's rate."""
        sound = self.ear.sound(encoded["samples"])
        return label_sets.turns(sound, int(encoded["label"]), self.labels)

    def tensors(self, columns: Columns) -> dict[str, Tensor]:
        """``frames`` (B, T, bands), scaled and padded with 0; ``lengths`` and ``label`` (B,)."""
        frames = columns.get("frames")
        label = torch.from_numpy(np.array(columns["label"], dtype=np.int64))
        changed = frames if isinstance(frames, Ragged) else None
        return {**self.ear.tensors(ragged_column(columns, "samples"), changed), "label": label}

    def viewed(self, column: Ragged) -> Ragged:
        """The frames of stored recordings, for transforms of frames and for simple models."""
        return self.ear.viewed(column)

    def front(self) -> Front:
        """What ``tensors`` does with recordings, for exported graphs."""
        return self.ear.front

    def save(self) -> dict[str, bytes]:
        """``sounds.json`` and the files of the hearing."""
        facts = {"labels": self.labels, "longest": self.longest}
        return {"sounds.json": json.dumps(facts).encode(), **self.ear.save()}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Codec:
        """Read what ``save`` wrote."""
        facts = json.loads(files["sounds.json"])
        return cls(Ear.load(files), facts["labels"], longest=facts["longest"])
