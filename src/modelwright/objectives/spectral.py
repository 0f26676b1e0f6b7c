"""Make the samples whose spectra are those of a recording, at several resolutions.

With s the magnitudes of the recording and s' those of what was made, for windows of several sizes
(multi-resolution STFT loss, Yamamoto et al. 2020, arXiv:1910.11480, equations 4 to 6):

    |s - s'|_F / |s|_F  +  mean |log s - log s'|,   a mean over the sizes,

and beside it ``mel`` times the mean distance of the log-mel frames that the model was given
(HiFi-GAN, arXiv:2010.05646, equation 3). Phases are free: many sound alike.

Pieces of ``crop`` frames are learned, cut where the number drawn for the batch and the row's own
bytes say, so a row's piece is the same whatever else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from modelwright.data.spectrograms import MelSettings, filters, log_mel, spectrum
from modelwright.errors import ModelwrightError
from modelwright.objectives.flow_matching import of_row
from modelwright.types import Batch, Codec, Columns, ragged_column

name = "spectral"
needs = "standardised"  # of the codec: frames of samples

POWER_FLOOR = 1e-9  # -90 dB of full scale: nearer to silence a slope is float32's rounding
Size = Annotated[int, Field(ge=16, le=16384, multiple_of=4)]


class _Waveforms(Protocol):
    """What a codec of recordings offers."""

    settings: MelSettings

    def tensors(self, columns: Columns) -> dict[str, Tensor]: ...

    def standardised(self, frames: Tensor) -> Tensor: ...


class Objective:
    """The distance of spectra, at several resolutions and in mel bands."""

    packs = True  # pieces are of one length, but for recordings that are shorter
    draws = True

    def __init__(
        self,
        codec: Codec,
        *,
        crop: Annotated[int, Field(ge=1)] = 32,
        sizes: Sequence[Size] = (256, 512, 1024, 2048),
        mel: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        """Choose what is compared.

        Args:
            codec: of the task.
            crop: frames of a piece; of a shorter recording, all of it.
            sizes: of the windows, in samples; each a quarter of itself after the one before.
            mel: weight of the distance of log-mel frames.
        """
        if not sizes:
            raise ModelwrightError(f"objective {name}: sizes is empty; give some, such as [1024]")
        self.codec = cast(_Waveforms, codec)
        self.crop, self.sizes, self.mel = crop, tuple(sizes), mel
        self.settings = self.codec.settings

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:
        """Inputs ``frames`` (B, crop, bands) and ``lengths`` (B,), of a piece of each row.

        Targets: ``samples`` (B, crop hop) of the pieces, and the ``whole`` rows (B, n) with their
        ``whole_lengths`` (B,) in frames, which ``predict`` makes again.
        """
        seed = int(torch.randint(1 << 62, (1,), generator=generator))
        tensors = self.codec.tensors(columns)
        whole, totals = tensors["samples"], tensors["lengths"]
        stored = ragged_column(columns, "samples")
        hop, side = self.settings.hop, self.settings.side
        lengths = totals.clamp(max=self.crop)
        pieces = torch.zeros(len(whole), int(lengths.max()) * hop + 2 * side)
        for i, (total, length) in enumerate(zip(totals.tolist(), lengths.tolist(), strict=True)):
            first = int(of_row(seed, stored[i]).integers(total - length + 1)) * hop
            around = F.pad(torch.from_numpy(_floats(stored[i])), (side, side))
            piece = around[first : first + length * hop + 2 * side]
            pieces[i, : len(piece)] = piece
        frames = self.codec.standardised(log_mel(pieces, self.settings, padded=True))
        inside = torch.arange(frames.shape[1] * hop) < lengths[:, None] * hop
        samples = pieces[:, side : pieces.shape[1] - side] * inside
        targets = {"samples": samples, "whole": whole, "whole_lengths": totals}
        return Batch({"frames": frames, "lengths": lengths}, targets, len(whole))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The distance of every row's piece from what is made of its frames, summed over rows."""
        made = model(**batch.inputs).float()
        target, lengths = batch.targets["samples"], batch.inputs["lengths"]
        found = self.distances(made, target, lengths)
        if self.mel:
            found = found + self.mel * self.mel_distances(made, target, lengths)
        return found.sum()

    def distances(self, made: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        """The multi-resolution distance of each row (B,) of samples (B, n)."""
        samples = lengths * self.settings.hop
        found = torch.zeros(len(made), device=made.device)
        for size in self.sizes:
            one, other = (_magnitudes(x, size) for x in (made, target))
            ratio = (one - other).flatten(1).norm(dim=1) / other.flatten(1).norm(dim=1).clamp(
                min=POWER_FLOOR**0.5
            )
            # Beyond the end both are silent and differ in nothing: only the count is the row's own.
            windows = 1 + (samples + size) // (size // 4)
            apart = (one.log() - other.log()).abs().mean(dim=2).sum(dim=1) / windows
            found = found + ratio + apart
        return found / len(self.sizes)

    def mel_distances(self, made: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        """The mean distance of the log-mel frames of each row (B,)."""
        gather = filters(self.settings).to(made.device)
        side, size, hop = self.settings.side, self.settings.size, self.settings.hop
        bands = [
            (_magnitudes(x, size, hop, side) @ gather.T).clamp(min=1e-5).log()
            for x in (made, target)
        ]
        apart = (bands[0] - bands[1]).abs().mean(dim=2)
        there = torch.arange(apart.shape[1], device=made.device) < lengths[:, None]
        return (apart * there).sum(dim=1) / lengths

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """The recordings made again of their frames (B, n), not a number beyond each row's end."""
        whole, lengths = batch.targets["whole"], batch.targets["whole_lengths"]
        frames = self.codec.standardised(log_mel(whole, self.settings))
        made: Tensor = model(frames=frames, lengths=lengths).float()
        inside = torch.arange(made.shape[1], device=made.device) < lengths[:, None] * (
            self.settings.hop
        )
        return made.where(inside, torch.nan)


def _magnitudes(samples: Tensor, size: int, hop: int = 0, side: int = -1) -> Tensor:
    """Magnitudes of windows over samples (B, n) with silence around, none below the floor."""
    around = size if side < 0 else side
    found = spectrum(F.pad(samples, (around, around)), size, hop or size // 4)
    power = found.real.square() + found.imag.square()
    return power.clamp(min=POWER_FLOOR).sqrt()


def _floats(stored: Any) -> Any:
    return np.asarray(stored, np.float32) / np.float32(2.0**15)
