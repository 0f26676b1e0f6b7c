"""How recordings become the numbers that a model reads: plain settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SCALED = 2**15  # recordings are stored as whole numbers of 16 bits


@dataclass(frozen=True)
class AudioSettings:
    """Of sounds, as published models name them, and as ours are made.

    Attributes:
        rate: samples a second.
        normalise: whether every sound is brought to mean 0 and variance 1 (wav2vec2).
        bins: mel bands; 0: the samples themselves are read.
        window, hop: samples of a Fourier window, and between two.
        centred: whether sounds are brought to one loudness and each band of their frames to mean 0.
        seconds: to which every sound is padded or cut; None: as long as it is.
        rest: all other fields of the file, as they were.
    """

    rate: int = 16_000
    normalise: bool = False
    bins: int = 0
    window: int = 400
    hop: int = 160
    seconds: float | None = None
    centred: bool = False
    rest: Mapping[str, Any] = field(default_factory=dict)

    def written(self) -> dict[str, Any]:
        """The content of preprocessor_config.json."""
        made: dict[str, Any] = {**self.rest, "sampling_rate": self.rate}
        if not self.bins:
            return {**made, "feature_size": 1, "do_normalize": self.normalise}
        made |= {"feature_size": self.bins, "n_fft": self.window, "hop_length": self.hop}
        if self.seconds is not None:
            length = round(self.seconds * self.rate)
            chunk = int(self.seconds) if self.seconds == int(self.seconds) else self.seconds
            made |= {"chunk_length": chunk, "n_samples": length}
            made["nb_max_frames"] = length // self.hop
        return made
