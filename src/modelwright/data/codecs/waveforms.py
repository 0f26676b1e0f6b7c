"""Recordings as a vocoder learns them: samples, and the log-mel frames that are made of them.

Samples are stored in 16 bits, with silence up to a whole number of frames. A model reads frames
scaled as (x - mean) / deviation of each band over the train split.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from safetensors import numpy as safetensors
from torch import Tensor

from modelwright.data.moments import Moments
from modelwright.data.sounds import resampled
from modelwright.data.spectrograms import MelSettings, log_mel, whole_frames
from modelwright.errors import ModelwrightError
from modelwright.types import Array, Columns, Encoded, Example, Sound, Turn, ragged_column

FULL = 2.0**15  # of samples in 16 bits


class Codec:
    """The settings of the frames and their scale: ``mean`` and ``deviation`` (bands,), float32."""

    ragged: tuple[str, ...] = ("samples",)

    def __init__(self, settings: MelSettings, mean: Array, deviation: Array) -> None:
        self.settings, self.mean, self.deviation = settings, mean, deviation
        self.features: int = settings.bands

    @classmethod
    def fit(
        cls,
        examples: Iterable[Example],
        *,
        rate: int | None = None,
        size: int = 1024,
        hop: int = 256,
        bands: int = 80,
        highest: float | None = None,
    ) -> Codec:
        """Learn the scale of every band from the ``examples`` of the train split.

        Args:
            examples: each with one recording.
            rate: samples a second; left out: that of the recordings, which must all have the
                same then. Others are brought to it.
            size: samples of a window.
            hop: samples from one frame to the next.
            bands: of the mel spectrum.
            highest: upper edge of the last band in hertz; left out: 8000, or half the rate.
        """
        sounds = [sound_of(example) for example in examples]
        chosen = fitted_rate(sounds, rate)
        settings = MelSettings(chosen, size, hop, bands, highest or min(8000.0, chosen / 2))
        moments = Moments()
        for sound in sounds:
            moments.add(frames_of(sound, settings))
        return cls(settings, *moments.scale())

    def encode(self, example: Example) -> Encoded:
        """``samples`` (n,) int16, n a multiple of the hop."""
        return {"samples": stored_samples(sound_of(example), self.settings)}

    def example(self, encoded: Encoded) -> Example:
        """The recording, given as what its frames are made of, and to be made again."""
        samples = np.asarray(encoded["samples"], np.float32) / np.float32(FULL)
        sound = Sound(samples, self.settings.rate)
        return Example((Turn("user", (sound,)), Turn("assistant", (sound,), learn=True)))

    def tensors(self, columns: Columns) -> dict[str, Tensor]:
        """``samples`` (B, n) float32 padded with silence, and ``lengths`` (B,) in frames."""
        stored = ragged_column(columns, "samples")
        padded = np.zeros((len(stored), int(stored.lengths.max())), np.float32)
        inside = np.arange(padded.shape[1]) < stored.lengths[:, None]
        padded[inside] = stored.values / np.float32(FULL)
        lengths = stored.lengths // self.settings.hop
        return {"samples": torch.from_numpy(padded), "lengths": torch.from_numpy(lengths)}

    def standardised(self, frames: Tensor) -> Tensor:
        """Log-mel frames (..., bands) in nats as a model reads them."""
        mean, deviation = (torch.from_numpy(a).to(frames) for a in (self.mean, self.deviation))
        return (frames - mean) / deviation

    def decode(self, outputs: Tensor) -> list[Turn]:
        """The recordings of outputs (B, n), each ending where its row is no longer a number."""
        turns = []
        for row in outputs.detach().float().cpu().numpy():
            ended = np.flatnonzero(np.isnan(row))
            samples = row[: ended[0]] if len(ended) else row
            turns.append(Turn("assistant", (Sound(samples.clip(-1, 1), self.settings.rate),)))
        return turns

    def save(self) -> dict[str, bytes]:
        """``waveforms.json`` and ``scale.safetensors``."""
        scale = {"mean": self.mean, "deviation": self.deviation}
        return {
            "waveforms.json": json.dumps(self.settings.to_dict(), sort_keys=True).encode(),
            "scale.safetensors": safetensors.save(scale),
        }

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Codec:
        """Read what ``save`` wrote."""
        settings: dict[str, Any] = json.loads(files["waveforms.json"])
        return cls(MelSettings(**settings), **safetensors.load(files["scale.safetensors"]))


def sound_of(example: Example) -> Sound:
    """The first recording of an example."""
    return next(p for turn in example.turns for p in turn.parts if isinstance(p, Sound))


def fitted_rate(sounds: list[Sound], rate: int | None) -> int:
    """The rate that is chosen, or that of all recordings.

    Raises:
        ModelwrightError: they have several rates and none is chosen.
    """
    rates = sorted({sound.rate for sound in sounds})
    if rate is None and len(rates) > 1:
        raise ModelwrightError(
            f"codec.rate: the recordings have {', '.join(map(str, rates))} samples a second; give"
            " the one that all are brought to"
        )
    return rate or rates[0]


def stored_samples(sound: Sound, settings: MelSettings) -> Array:
    """The samples at the settings' rate, int16, with silence up to a whole number of frames.

    Raises:
        ModelwrightError: there is no sample.
    """
    if not len(sound.samples):
        raise ModelwrightError("sound: no samples; leave the recording out")
    samples = resampled(sound.samples, sound.rate, settings.rate)
    whole = np.clip(np.rint(samples * FULL), -FULL, FULL - 1).astype(np.int16)
    return whole_frames(whole, settings.hop)


def frames_of(sound: Sound, settings: MelSettings) -> Array:
    """Log-mel frames (T, bands) float32 of a recording as it is stored, in nats."""
    stored = stored_samples(sound, settings).astype(np.float32) / np.float32(FULL)
    frames: Array = log_mel(torch.from_numpy(stored)[None], settings)[0].numpy()
    return frames
