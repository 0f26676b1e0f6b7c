"""From a recording to the numbers that a model reads: one way for training, answers and graphs.

Recordings are stored as 16-bit samples of one channel at one rate. What is made of a batch of
them is one of three things, as the settings say: log-mel frames, scaled by mean and deviation of
each band over the train split; the samples themselves, standardised (wav2vec2); or a window of
log-mel frames of fixed length (Whisper). The last two are those of ``speech.py``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import numpy as safetensors
from torch import Tensor, nn

from modelwright.data import melscale, sounds, speech
from modelwright.data.moments import Moments
from modelwright.data.sound_settings import SCALED, AudioSettings
from modelwright.errors import ModelwrightError
from modelwright.types import (
    Array,
    Columns,
    Example,
    Ragged,
    RawInput,
    Sound,
    Turn,
    ragged_column,
)

SAMPLED = 1024  # recordings, evenly chosen, from which mean and deviation are taken
FLOOR = melscale.FLOOR
LEVEL = 0.1  # root mean square of recordings that are brought to one loudness
QUIETEST = 1e-10  # mean square below which a recording counts as silence


class LogMel(nn.Module):
    """log(1e-6 + filters |FFT|^2 / Σ window^2) of windows of 25 ms every 10 ms, in float32.

    Window t begins with sample t * hop, and what it lacks at the end is silence: n samples are
    n // hop + 1 frames, whatever stands beside them in a batch.
    """

    def __init__(self, rate: int, bands: int, highest: float) -> None:
        super().__init__()
        if 2 * highest > rate:
            raise ModelwrightError(
                f"codec.highest: {rate} samples a second hold frequencies up to {rate / 2:g} Hz,"
                f" less than {highest:g}; lower it"
            )
        self.hop = max(1, round(melscale.HOP_SECONDS * rate))
        self.size = melscale.transform_size(rate, bands, highest)
        window = melscale.window_of(rate)
        filters = melscale.mel_filters(rate, self.size, bands, highest)
        self.register_buffer("window", window.float(), persistent=False)
        weights = torch.from_numpy(filters.T / float(window.square().sum())).float()
        self.register_buffer("filters", weights.contiguous(), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Frames (B, n // hop + 1, bands) of samples (B, n) in [-1, 1]."""
        window = self.get_buffer("window")
        pieces = F.pad(samples, (0, len(window))).unfold(1, len(window), self.hop)
        spectrum = torch.view_as_real(torch.fft.rfft(pieces * window, n=self.size))
        power = spectrum[..., 0].square() + spectrum[..., 1].square()  # a sum over two is slow
        return (FLOOR + melscale.product(power, self.get_buffer("filters"))).log()


class Front(nn.Module):
    """Recordings (B, n) of 16 bits and their ``lengths`` to scaled frames; see ``types.Front``."""

    def __init__(self, ear: Ear) -> None:
        super().__init__()
        self.ear = ear
        rate = ear.settings.rate
        self.facts: dict[str, Any] = {"pad": 0, "rate": rate, "bands": ear.settings.bins}
        about = f"one channel of 16-bit samples, {rate} a second; log-mel frames in the graph"
        self.reads = (
            RawInput("samples", torch.int16, ("batch", "time"), about),
            RawInput("lengths", torch.int64, ("batch",), "true samples of each row, at least 1"),
        )
        self.mel = LogMel(rate, ear.settings.bins, ear.highest)
        self.register_buffer("mean", torch.from_numpy(np.array(ear.mean)), persistent=False)
        deviation = torch.from_numpy(np.array(ear.deviation))
        self.register_buffer("deviation", deviation, persistent=False)

    def forward(self, samples: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """``frames`` (B, T, bands), 0 where a row has ended, and their number ``lengths`` (B,)."""
        sound = samples.to(torch.float32) / SCALED
        if self.ear.settings.centred:
            power = sound.square().sum(1) / lengths
            sound = sound * (LEVEL / power.clamp(min=QUIETEST).sqrt())[:, None]
        frames = self.mel(sound)
        counts = torch.div(lengths, self.mel.hop, rounding_mode="floor") + 1
        true = (torch.arange(frames.shape[1], device=frames.device) < counts[:, None])[..., None]
        if self.ear.settings.centred:
            sums = frames.where(true, 0.0).sum(1, keepdim=True)
            frames = frames - sums / counts[:, None, None]
        frames = (frames - self.get_buffer("mean")) / self.get_buffer("deviation")
        return {"frames": frames.where(true, 0.0), "lengths": counts}

    def raw(self, example: Example) -> dict[str, Array]:
        """The recording of the example as a batch of one."""
        samples = self.ear.heard(example)[None]
        return {"samples": samples, "lengths": np.array([samples.shape[1]], dtype=np.int64)}


class Ear:
    """The settings, and mean and deviation (bands,) of the frames of the train split."""

    def __init__(
        self, settings: AudioSettings, mean: Array, deviation: Array, highest: float
    ) -> None:
        self.settings, self.highest = settings, highest
        self.mean, self.deviation = mean, deviation
        self.mean_length = 1.0  # frames of a recording
        self._front: Front | None = None

    @classmethod
    def fit(
        cls,
        examples: Iterable[Example],
        *,
        rate: int,
        bands: int,
        highest: float | None,
        centred: bool = False,
    ) -> Ear:
        """Learn the scale of the frames from the ``examples`` of the train split.

        Args:
            examples: each with one recording.
            rate: samples a second to which every recording is brought.
            bands: of the mel scale.
            highest: upper edge of the last band in hertz; None: half the rate.
            centred: whether recordings are brought to one loudness, and each band is less its mean
                over the recording.
        """
        window = max(2, round(melscale.WINDOW_SECONDS * rate))
        hop = max(1, round(melscale.HOP_SECONDS * rate))
        settings = AudioSettings(rate, bins=bands, window=window, hop=hop, centred=centred)
        blank = np.zeros(bands, np.float32)
        ear = cls(settings, blank, np.ones_like(blank), highest or rate / 2)
        kept = list(examples)
        moments, count = Moments(), min(SAMPLED, len(kept))
        for i in range(count):
            moments.add(ear.frames(ear.heard(kept[i * len(kept) // count])))
        fitted = cls(settings, *moments.scale(), ear.highest)
        fitted.mean_length = moments.count / count
        return fitted

    @property
    def reads(self) -> str:
        """What a model is given: "frames", "samples" or "mel"."""
        if not self.settings.bins:
            return "samples"
        return "frames" if self.settings.seconds is None else "mel"

    @property
    def front(self) -> Front:
        """The way of a recording to frames.

        Raises:
            ModelwrightError: the model reads something else than frames.
        """
        if self.reads != "frames":
            raise ModelwrightError(
                f"export: this model reads {self.reads}, of which no graph is made; use --to hub"
            )
        self._front = self._front or Front(self)
        return self._front

    def heard(self, example: Example) -> Array:
        """The only recording of an example as it is stored: int16 (n,) at the codec's rate.

        Raises:
            ModelwrightError: there is not exactly one, or it holds no sound.
        """
        found = [p for t in example.turns for p in t.parts if isinstance(p, Sound)]
        if len(found) != 1:
            raise ModelwrightError(
                f"codec: an example has {len(found)} recordings, exactly one is meant"
            )
        samples = np.asarray(found[0].samples)
        if samples.ndim != 1 or not len(samples):
            raise ModelwrightError(
                f"codec: a recording of shape {samples.shape}; samples (n,) are meant, at least one"
            )
        if not np.isfinite(samples).all():
            raise ModelwrightError("codec: a recording holds NaN or infinity; remove it")
        at = sounds.resampled(samples, found[0].rate, self.settings.rate)
        whole = np.rint(at * np.float32(SCALED))
        return np.asarray(np.clip(whole, -SCALED, SCALED - 1).astype(np.int16))

    def sound(self, stored: Array) -> Sound:
        """The recording that was stored."""
        return Sound(np.asarray(stored).astype(np.float32) / np.float32(SCALED), self.settings.rate)

    def frames(self, stored: Array) -> Array:
        """Scaled frames (T, bands) of one stored recording."""
        row = torch.from_numpy(np.array(stored)[None])
        with torch.no_grad():
            frames = self.front(row, torch.tensor([row.shape[1]]))["frames"]
        return np.asarray(frames[0].numpy())

    def viewed(self, column: Ragged) -> Ragged:
        """The frames of stored recordings, so that they can be changed before they are a batch."""
        return Ragged.of([self.frames(column[i]) for i in range(len(column))])

    def tensors(self, column: Ragged, frames: Ragged | None = None) -> dict[str, Tensor]:
        """What a model reads of stored recordings, padded with 0, and ``lengths`` (B,).

        Each recording is worked on alone: nothing depends on what stands beside it. ``frames``
        are those of ``viewed``, changed.
        """
        if self.reads == "mel":
            return {"mel": torch.from_numpy(np.stack([self._window(row) for row in _rows(column)]))}
        if self.reads == "samples":
            return _padded(self.reads, [self._samples(row) for row in _rows(column)])
        rows = _rows(frames) if frames is not None else [self.frames(r) for r in _rows(column)]
        return _padded(self.reads, rows)

    def _window(self, stored: Array) -> Array:
        s = self.settings
        found = self.sound(stored).samples
        return speech.whisper_frames(
            found, s.rate, bands=s.bins, seconds=s.seconds or speech.SECONDS
        )

    def _samples(self, stored: Array) -> Array:
        found = self.sound(stored).samples
        return speech.standardised(found, self.settings.rate) if self.settings.normalise else found

    def save(self) -> dict[str, bytes]:
        """``hearing.json`` and ``scale.safetensors``."""
        facts = {
            "settings": dataclasses.asdict(self.settings),
            "highest": self.highest,
            "mean_length": self.mean_length,
        }
        scale = {"mean": self.mean, "deviation": self.deviation}
        return {
            "hearing.json": json.dumps(facts, sort_keys=True).encode(),
            "scale.safetensors": safetensors.save(scale),
        }

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Ear:
        """Read what ``save`` wrote."""
        facts = json.loads(files["hearing.json"])
        scale = safetensors.load(files["scale.safetensors"])
        ear = cls(AudioSettings(**facts["settings"]), **scale, highest=facts["highest"])
        ear.mean_length = facts["mean_length"]
        return ear


def seconds_of(example: Example) -> float:
    """How long the longest recording of an example is; 0 where there is none."""
    parts = (p for t in example.turns for p in t.parts if isinstance(p, Sound))
    return max((p.seconds for p in parts), default=0.0)


def in_pieces(columns: Columns, codec: Any) -> tuple[Columns, Array]:
    """Recordings longer than the codec's ``longest`` cut, so that memory is bounded.

    Only those without a transcript are, since nobody knows what of it belongs to a piece. A plain
    row stays one piece.

    Returns:
        The columns ``samples`` and ``letters`` of the pieces, and into how many each row was cut.
    """
    samples, letters = ragged_column(columns, "samples"), ragged_column(columns, "letters")
    most = round(codec.longest * codec.rate)
    pieces = np.where(letters.lengths > 0, 1, np.maximum(1, -(-samples.lengths // most)))
    if (pieces == 1).all():
        return columns, pieces
    parts = [
        p for i, n in enumerate(pieces) for p in cut(np.asarray(samples[i]), int(n), codec.rate)
    ]
    spelled = [np.asarray(letters[i]) for i, n in enumerate(pieces) for _ in range(n)]
    return {"samples": Ragged.of(parts), "letters": Ragged.of(spelled)}, pieces


def questions(turns: Sequence[Turn], codec: Any) -> list[tuple[Turn, ...]]:
    """A question with a recording as one question for each piece of it, as ``in_pieces`` cuts."""
    return list(one_by_one(turns, codec))


def one_by_one(turns: Sequence[Turn], codec: Any) -> Iterator[tuple[Turn, ...]]:
    """The same, each made when it is asked for: a piece begins where the one before it ends."""
    ear: Ear = codec.ear
    stored = ear.heard(Example(tuple(turns)))
    count = max(1, -(-len(stored) // round(codec.longest * codec.rate)))
    for part in cut(stored, count, codec.rate) if count > 1 else [stored]:
        yield (Turn("user", (ear.sound(part),)),)


def cut(samples: Array, count: int, rate: int) -> list[Array]:
    """A recording (n,) in ``count`` pieces of about one length, cut where it is quiet.

    Near each place the quietest 20 ms of the second around it are taken, so that words stay whole.
    """
    size, reach = max(1, round(0.02 * rate)), rate // 2
    bounds = [0]
    for k in range(1, count):
        at = k * len(samples) // count
        first = max(bounds[-1] + 1, at - reach)
        near = samples[first : at + reach].astype(np.float64)
        whole = near[: len(near) // size * size].reshape(-1, size)
        quiet = int(np.square(whole).sum(axis=1).argmin()) if len(whole) else 0
        bounds.append(first + quiet * size + size // 2 if len(whole) else at)
    return [samples[a:b] for a, b in zip(bounds, [*bounds[1:], len(samples)], strict=True)]


def _rows(column: Ragged) -> list[Array]:
    return [np.asarray(column[i]) for i in range(len(column))]


def _padded(name: str, rows: list[Array]) -> dict[str, Tensor]:
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    padded = np.zeros((len(rows), int(lengths.max()), *rows[0].shape[1:]), dtype=np.float32)
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = row
    return {name: torch.from_numpy(padded), "lengths": torch.from_numpy(lengths)}
