"""Sound to log-mel frames and back: what a vocoder reads, and how spectra become samples again.

Frame t holds samples t hop - (size - hop) / 2 onwards, as if there were silence around the
recording; so n samples are exactly n / hop frames, and a piece of one is a piece of the other.
Magnitudes are scaled by 2 / Σ window, by which a sine of amplitude 1 has a peak of 1.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from modelwright.data.melscale import mel_filters, product
from modelwright.errors import ModelwrightError

FLOOR = 1e-5  # of a magnitude, -100 dB of full scale: quieter is silent
UPDATES = 60  # of the magnitudes that a mel spectrum is taken apart into
MOMENTUM = 0.99  # of the fast algorithm: the value of its authors


@dataclass(frozen=True)
class MelSettings:
    """How recordings become frames: ``rate`` in hertz, ``size`` and ``hop`` in samples.

    ``bands`` filters reach to ``highest`` hertz. Who makes frames and who reads them must agree
    in all of it.
    """

    rate: int
    size: int = 1024
    hop: int = 256
    bands: int = 80
    highest: float = 8000.0

    def __post_init__(self) -> None:
        if not 0 < self.hop <= self.size or (self.size - self.hop) % 2:
            raise ModelwrightError(
                f"codec.hop: {self.hop} of a window of {self.size}; give an even distance, such as"
                " a quarter of codec.size"
            )
        if 2 * self.highest > self.rate:
            raise ModelwrightError(
                f"codec.highest: {self.rate} samples a second hold frequencies up to"
                f" {self.rate / 2:g} Hz, less than {self.highest:g}; lower it"
            )

    @property
    def side(self) -> int:
        """Samples of silence that are put before and after a recording."""
        return (self.size - self.hop) // 2

    @property
    def frames_a_second(self) -> float:
        """Frames in a second of sound."""
        return self.rate / self.hop

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for a codec's file."""
        return asdict(self)


def _window(size: int, device: torch.device) -> Tensor:
    """The Hann window sin^2(π i / size), whose sum is size / 2.

    Made anew each time: a tensor that was first made while a graph is traced holds no numbers.
    """
    return torch.hann_window(size, device=device)


def spectrum(samples: Tensor, size: int, hop: int) -> Tensor:
    """The complex spectra (B, T, size / 2 + 1) of windows that lie within samples (B, n)."""
    frames = samples.unfold(-1, size, hop) * _window(size, samples.device)
    found: Tensor = torch.fft.rfft(frames) * (4 / size)
    return found


def analysed(samples: Tensor, settings: MelSettings) -> Tensor:
    """The complex spectra (B, n / hop, size / 2 + 1) of samples (B, n), n a multiple of the hop."""
    padded = F.pad(samples, (settings.side, settings.side))
    return spectrum(padded, settings.size, settings.hop)


def synthesised(spectra: Tensor, size: int, hop: int, lengths: Tensor | None = None) -> Tensor:
    """Samples (B, T hop) of complex spectra (B, T, size / 2 + 1), the inverse of ``analysed``.

    Windows are added where they overlap and divided by the sum of their squares (Griffin and Lim
    1984, equation 6: the samples whose spectra are nearest). Frames from ``lengths`` (B,) on are
    left out, and the samples there are 0.
    """
    total, side = spectra.shape[1], (size - hop) // 2
    window = _window(size, spectra.device)
    frames = torch.fft.irfft(spectra, n=size) * (window * (size / 4))
    squares = window.square().expand(len(spectra), total, size)
    there = None
    if lengths is not None:
        there = (torch.arange(total, device=spectra.device) < lengths[:, None])[..., None]
        frames, squares = frames * there, squares * there
    added = _overlapped(torch.cat((frames, squares)), hop)
    added = added[:, side : side + total * hop]
    made, weight = added.chunk(2)
    made = made / weight.clamp(min=1e-8)
    if there is not None:
        made = made * there.expand(-1, -1, hop).flatten(1)
    return made


def _overlapped(frames: Tensor, hop: int) -> Tensor:
    """The sum (B, (T - 1) hop + size) of frames (B, T, size), each ``hop`` after another."""
    total, size = frames.shape[1:]
    folded = F.fold(
        frames.transpose(1, 2),
        (1, (total - 1) * hop + size),
        kernel_size=(1, size),
        stride=(1, hop),
    )
    return folded[:, 0, 0]


def filters(settings: MelSettings) -> Tensor:
    """The triangles (bands, size / 2 + 1) that gather magnitudes, each of height 1."""
    made = mel_filters(settings.rate, settings.size, settings.bands, settings.highest)
    return torch.from_numpy(made.astype(np.float32))


def log_mel(samples: Tensor, settings: MelSettings, *, padded: bool = False) -> Tensor:
    """Log-mel frames (B, T, bands) of samples (B, n): log max(1e-5, filters |spectrum|), in nats.

    ``padded``: what lies before and after the piece is there already, ``side`` samples of it.
    """
    whole = samples if padded else F.pad(samples, (settings.side, settings.side))
    sizes = spectrum(whole, settings.size, settings.hop).abs()
    gathered = product(sizes, filters(settings).to(samples.device).T)
    return gathered.clamp(min=FLOOR).log()


def magnitudes(frames: Tensor, settings: MelSettings) -> Tensor:
    """Magnitudes (B, T, size / 2 + 1), none below 0, whose mel bands are nearest to the frames'.

    Found by the multiplicative updates of non-negative least squares (Lee and Seung 2001),
    m <- m (y A) / (m A^T A), from y A on.

    Args:
        frames: log-mel (B, T, bands), in nats.
        settings: that they were made with.
    """
    bands = frames.exp()
    gather = filters(settings).to(frames.device)
    wanted = bands @ gather
    found, both = wanted.clone(), gather.T @ gather
    for _ in range(UPDATES):
        found = found * wanted / (found @ both).clamp(min=1e-12)
    return found


def griffin_lim(
    frames: Tensor, settings: MelSettings, *, iterations: int = 60, seed: int = 0
) -> Tensor:
    """Samples (B, T hop) of log-mel frames (B, T, bands), without anything learned.

    The phase is sought for which a spectrum of these magnitudes is one of a sound: samples are
    made and analysed again, and the magnitudes put back (Griffin and Lim 1984), with the momentum
    of the fast algorithm (Perraudin, Balazs and Søndergaard 2013): t_n = c_n + 0.99 (c_n - c_n-1).

    Args:
        frames: log-mel (B, T, bands), in nats.
        settings: that they were made with.
        iterations: how often.
        seed: of the phases that it begins with.
    """
    sizes = magnitudes(frames, settings)
    generator = torch.Generator().manual_seed(seed)
    turns = torch.rand(sizes.shape, generator=generator).to(frames.device) * (2 * torch.pi)
    now = torch.polar(sizes, turns)
    before = torch.zeros_like(now)
    for _ in range(iterations):
        sound = analysed(synthesised(now, settings.size, settings.hop), settings)
        ahead = sound + MOMENTUM * (sound - before)
        now, before = sizes * ahead / ahead.abs().clamp(min=1e-9), sound
    return synthesised(now, settings.size, settings.hop)


def whole_frames(samples: np.ndarray[Any, Any], hop: int) -> np.ndarray[Any, Any]:
    """The samples (n,) with silence behind them, up to a multiple of ``hop``."""
    return np.pad(samples, (0, -len(samples) % hop))
