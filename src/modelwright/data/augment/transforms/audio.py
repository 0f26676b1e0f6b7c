"""Sound: speed, noise, gain and shift of recordings, and masks over log-mel frames.

The first four take samples (n,) or (n, channels) in [-1, 1], how many there are a second, and a
generator; ``SpecAugment`` takes frames (time, features).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

if TYPE_CHECKING:
    from modelwright.types import Array


EXACT = 2e-3  # of a speed
SHORT = 1024  # samples: any length is quick below it
ROOM = 0.15  # of a recording's length: silence that may follow it
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Speed:
    """Play faster or slower, pitch included, by a factor between ``slowest`` and ``fastest``.

    Ko et al., 2015, use 0.9 to 1.1. The spectrum of the whole recording is cut off or extended,
    which is exact for what is below half the lower sample rate. Longer recordings are followed by
    silence up to a length that Fourier transforms are quick with, and so is what is made of them:
    the factor is that of two such lengths, less than a thousandth off.
    """

    kind: ClassVar[str] = "sound"

    slowest: Annotated[float, Field(gt=0.1, le=10)] = 0.9
    fastest: Annotated[float, Field(gt=0.1, le=10)] = 1.1

    def __call__(self, samples: Array, rate: int, rng: np.random.Generator) -> Array:  # noqa: ARG002
        """The samples, n / factor of them."""
        factor = _between(self.slowest, self.fastest, rng)
        length = max(1, round(len(samples) / factor))
        before, after = _quick_lengths(len(samples), length, factor)
        spectrum = np.fft.rfft(samples, n=before, axis=0)
        kept = spectrum[: after // 2 + 1] * (after / before)
        return _safe(np.fft.irfft(kept, n=after, axis=0)[:length])


@dataclass(frozen=True)
class Noise:
    """Add white noise, ``least`` to ``most`` dB below the recording's own power (SNR)."""

    kind: ClassVar[str] = "sound"

    least: float = 10.0
    most: float = 30.0

    def __call__(self, samples: Array, rate: int, rng: np.random.Generator) -> Array:  # noqa: ARG002
        """The samples with noise; silence stays silent, having no power to compare with."""
        ratio = _between(self.least, self.most, rng)
        noise = rng.standard_normal(samples.shape)
        power = float(np.square(samples, dtype=np.float64).mean())
        wanted = power / 10 ** (ratio / 10)
        return _safe(samples + noise * np.sqrt(wanted / np.square(noise).mean()))


@dataclass(frozen=True)
class Gain:
    """Louder or quieter by ``least`` to ``most`` dB; what would clip is kept at full scale."""

    kind: ClassVar[str] = "sound"

    least: float = -6.0
    most: float = 6.0

    def __call__(self, samples: Array, rate: int, rng: np.random.Generator) -> Array:  # noqa: ARG002
        """The samples times one factor, clipped to [-1, 1]."""
        decibels = _between(self.least, self.most, rng)
        return _safe(samples * 10 ** (decibels / 20))


@dataclass(frozen=True)
class Shift:
    """Begin earlier or later by up to ``seconds``; silence comes in, what goes out is lost."""

    kind: ClassVar[str] = "sound"

    seconds: Annotated[float, Field(gt=0)] = 0.1

    def __call__(self, samples: Array, rate: int, rng: np.random.Generator) -> Array:
        """The samples, as many as before."""
        most = min(round(self.seconds * rate), len(samples) - 1)
        by = int(rng.integers(-most, most + 1))
        out = np.zeros_like(samples)
        if by >= 0:
            out[by:] = samples[: len(samples) - by]
        else:
            out[:by] = samples[-by:]
        return out


@dataclass(frozen=True)
class SpecAugment:
    """Bands of features and spans of time set to the mean (Park et al., 2019, arXiv:1904.08779).

    Attributes:
        frequency_masks: bands masked, each 0 to ``frequency`` of the features wide (a share).
        frequency: largest share of the features in one band; their 27 of 80 is 0.34.
        time_masks: spans masked, each 0 to ``time`` of the frames long.
        time: largest share of the frames in one span; theirs is 0.2 at most.
        warp: largest shift, as a share of the frames, of a random frame by stretching what is
            before and shrinking what is behind it; 0 for none.
    """

    kind: ClassVar[str] = "frames"

    frequency_masks: Annotated[int, Field(ge=0)] = 2
    frequency: Share = 0.2
    time_masks: Annotated[int, Field(ge=0)] = 2
    time: Share = 0.1
    warp: Annotated[float, Field(ge=0, lt=0.5)] = 0.0

    def __call__(self, frames: Array, rng: np.random.Generator) -> Array:
        """Frames of the same shape."""
        out = self._warped(frames, rng) if self.warp else frames.copy()
        mean = out.mean(axis=0)
        for masks, share, axis in (
            (self.frequency_masks, self.frequency, 1),
            (self.time_masks, self.time, 0),
        ):
            size = out.shape[axis]
            for _ in range(masks):
                length = int(rng.integers(int(share * size) + 1))
                start = int(rng.integers(size - length + 1))
                span = slice(start, start + length)
                if axis:
                    out[:, span] = mean[span]
                else:
                    out[span] = mean
        return out

    def _warped(self, frames: Array, rng: np.random.Generator) -> Array:
        """Piecewise linear in time: a frame in the middle is moved, both ends stay."""
        last = len(frames) - 1
        most = self.warp * last
        if last < 2:
            return frames.copy()
        at = rng.uniform(most, last - most) if 2 * most < last else last / 2
        to = np.clip(at + rng.uniform(-most, most), 0.5, last - 0.5)
        source = np.interp(np.arange(last + 1), [0, to, last], [0, at, last])
        low = np.minimum(source.astype(np.int64), last - 1)
        part = (source - low)[:, None]
        mixed = frames[low] * (1 - part) + frames[low + 1] * part
        return np.asarray(mixed.astype(frames.dtype))


def _quick_lengths(given: int, wanted: int, factor: float) -> tuple[int, int]:
    """Lengths of at least ``given`` and ``wanted`` whose ratio is the factor within ``EXACT``.

    Both have no prime factor above 7, which transforms are an order of magnitude quicker with than
    with a prime. Of short recordings, or where no pair is near, they are the lengths themselves.
    """
    if min(given, wanted) < SHORT:
        return given, wanted
    known = _quick(int(np.log2(max(given, wanted))) + 2)
    first, end = np.searchsorted(known, (given, int(given * (1 + ROOM)) + 1))
    before = known[first:end]
    place = np.searchsorted(known, before / factor)
    pairs = np.concatenate([np.stack((before, known[place - d])) for d in (0, 1)], axis=1)
    pairs = pairs[:, pairs[1] >= wanted]
    off = np.abs(pairs[0] / pairs[1] / factor - 1)
    best = off.argmin()
    return (int(pairs[0, best]), int(pairs[1, best])) if off[best] < EXACT else (given, wanted)


@lru_cache(maxsize=4)
def _quick(bits: int) -> Array:
    """The numbers below 2^bits without a prime factor above 7, in order, int64."""
    found = np.ones(1, np.int64)
    for prime in (2, 3, 5, 7):
        powers = prime ** np.arange(int(bits / np.log2(prime)) + 1, dtype=np.int64)
        found = np.outer(found, powers).ravel()
        found = found[found < 1 << bits]
    return np.sort(found)


def _between(one: float, other: float, rng: np.random.Generator) -> float:
    return float(rng.uniform(min(one, other), max(one, other)))


def _safe(samples: Array) -> Array:
    return np.clip(samples, -1, 1).astype(np.float32)
