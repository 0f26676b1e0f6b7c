"""Texts to be spoken: characters, how long each is, and the recording that speaks them.

A text begins and ends with the number 0, which stands for the silence around it. How many frames
each character takes is found when a row is encoded, by states fitted to the train split
(``alignment.py``). Recordings are stored, and made frames of, as a vocoder's are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from safetensors import numpy as safetensors
from torch import Tensor

from modelwright.data import labels as label_sets
from modelwright.data.alignment import Aligner
from modelwright.data.codecs import waveforms
from modelwright.data.spectrograms import log_mel
from modelwright.data.spelling import Spelling
from modelwright.errors import ModelwrightError
from modelwright.types import (
    Array,
    Columns,
    Encoded,
    Example,
    Label,
    Sound,
    Text,
    Turn,
    ragged_column,
)

EDGE = 0  # the silence before and after a text
ALIGNED = 2000  # recordings, evenly chosen, to which the states are fitted
PAD = -1  # of letters, where a row of a batch has ended


class Codec:
    """Characters, voices, the settings and scale of frames, and the states that align them.

    ``labels`` are the names of the voices, none where there is one. ``mean_length`` is in frames.
    """

    ragged: tuple[str, ...] = ("samples", "letters", "durations")

    def __init__(
        self,
        waves: waveforms.Codec,
        spelling: Spelling,
        labels: list[str],
        aligner: Aligner,
        *,
        mean_length: float,
    ) -> None:
        self.waves, self.spelling, self.labels = waves, spelling, labels
        self.aligner, self.mean_length = aligner, mean_length
        self.settings, self.features = waves.settings, waves.features
        self.vocabulary: int = len(spelling.tokens)

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
        """Learn characters, voices, scale and states from the ``examples`` of the train split.

        Args:
            examples: each with a text that is given, and its recording.
            rate: as of the codec ``waveforms``, as are the next four; a vocoder must have the
                same.
            size: samples of a window.
            hop: samples from one frame to the next.
            bands: of the mel spectrum.
            highest: upper edge of the last band in hertz.
        """
        kept = list(examples)
        options: dict[str, Any] = {"rate": rate, "size": size, "hop": hop, "bands": bands}
        waves = waveforms.Codec.fit(kept, **options, highest=highest)
        spelling = Spelling.of(map(text_of, kept), "characters")
        names = {n for e in kept if (n := _voice(e)) is not None}
        labels = label_sets.label_set(names) if len(names) > 1 else []
        long = [waveforms.sound_of(e).seconds * waves.settings.frames_a_second for e in kept]
        letters = [_edged(spelling.spelled(text_of(e))) for e in kept]
        fits = [i for i, (n, t) in enumerate(zip(long, letters, strict=True)) if n >= len(t)]
        if not fits:
            raise ModelwrightError(
                "codec: every recording has fewer frames than its text has characters; check the"
                " column of the texts, or lower codec.hop"
            )
        some = fits[:: -(-len(fits) // ALIGNED)]
        frames = [waveforms.frames_of(waveforms.sound_of(kept[i]), waves.settings) for i in some]
        aligner = Aligner.fit(frames, [letters[i] for i in some], len(spelling.tokens))
        return cls(waves, spelling, labels, aligner, mean_length=float(np.mean(long)))

    def problem(self, example: Example) -> str:
        """Why an example cannot be learned from, or an empty string."""
        if problem := self.spelling.problem(text_of(example)):
            return problem
        stored = waveforms.stored_samples(waveforms.sound_of(example), self.settings)
        letters = len(self.spelling.pieces(text_of(example))) + 2
        few = len(stored) // self.settings.hop < letters
        return "recording too short for its text" if few else ""

    def encode(self, example: Example) -> Encoded:
        """``samples`` (n,) int16, ``letters`` and ``durations`` (m,) int32, ``label`` () int64.

        A question has no samples, and durations of 0; without a voice the label is -1.

        Raises:
            ModelwrightError: a character or voice that train has not.
        """
        letters = _edged(self.spelling.spelled(text_of(example)))
        voice = _voice(example)
        number = label_sets.UNKNOWN
        if voice is not None and self.labels:
            number = label_sets.numbered(voice, self.labels)
        sounds = [p for t in example.turns for p in t.parts if isinstance(p, Sound)]
        stored, durations = np.zeros(0, np.int16), np.zeros(len(letters), np.int32)
        if sounds:
            stored = waveforms.stored_samples(sounds[0], self.settings)
            frames = waveforms.frames_of(sounds[0], self.settings)
            durations = self.aligner.durations(frames, letters)
        return {
            "samples": stored,
            "letters": letters,
            "durations": durations,
            "label": np.array(number, np.int64),
        }

    def example(self, encoded: Encoded) -> Example:
        """The text, the voice if there are several, and the recording if there is one."""
        text = Text(self.spelling.read(np.asarray(encoded["letters"])[1:-1].tolist()))
        number = int(encoded["label"])
        voice = () if number < 0 else (Label(self.labels[number]),)
        given = Turn("user", (text, *voice))
        stored = np.asarray(encoded["samples"])
        if not len(stored):
            return Example((given,))
        samples = stored.astype(np.float32) / np.float32(waveforms.FULL)
        sound = Sound(samples, self.settings.rate)
        return Example((given, Turn("assistant", (sound,), learn=True)))

    def tensors(self, columns: Columns) -> dict[str, Tensor]:
        """What a model reads of stored rows, padded.

        ``frames`` (B, T, bands) scaled, 0 beyond a row's end; ``letters`` (B, S) int64, -1 beyond
        it, and their ``durations`` (B, S) int64; ``label`` (B,) int64.
        """
        waves = self.waves.tensors(columns)
        if waves["samples"].shape[1]:
            frames = self.waves.standardised(log_mel(waves["samples"], self.settings))
        else:  # questions
            frames = torch.zeros(len(waves["samples"]), 0, self.features)
        there = torch.arange(frames.shape[1]) < waves["lengths"][:, None]
        letters, durations = (ragged_column(columns, name) for name in ("letters", "durations"))
        shape = (len(letters), int(letters.lengths.max()))
        inside = np.arange(shape[1]) < letters.lengths[:, None]
        spelled, lasting = np.full(shape, PAD, np.int64), np.zeros(shape, np.int64)
        spelled[inside], lasting[inside] = letters.values, durations.values
        return {
            "frames": frames * there[..., None],
            "letters": torch.from_numpy(spelled),
            "durations": torch.from_numpy(lasting),
            "label": torch.from_numpy(np.array(columns["label"], dtype=np.int64)),
        }

    def log_mel(self, frames: Tensor) -> Tensor:
        """Scaled frames (..., bands) in nats, as a vocoder is given them."""
        mean, deviation = (
            torch.from_numpy(a).to(frames) for a in (self.waves.mean, self.waves.deviation)
        )
        return frames * deviation + mean

    def save(self) -> dict[str, bytes]:
        """``spoken_text.json``, ``alignment.safetensors`` and the files of the frames."""
        facts = {
            "spelling": self.spelling.saved()[0],
            "labels": self.labels,
            "mean_length": self.mean_length,
        }
        states = {
            "means": self.aligner.means,
            "variances": self.aligner.variances,
            "pairs": self.aligner.pairs,
        }
        return {
            "spoken_text.json": json.dumps(facts, sort_keys=True).encode(),
            "alignment.safetensors": safetensors.save(states),
            **self.waves.save(),
        }

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Codec:
        """Read what ``save`` wrote."""
        facts = json.loads(files["spoken_text.json"])
        spelling = Spelling.restored(facts["spelling"], files)
        aligner = Aligner(**safetensors.load(files["alignment.safetensors"]))
        waves = waveforms.Codec.load(files)
        length = facts["mean_length"]
        return cls(waves, spelling, facts["labels"], aligner, mean_length=length)


def text_of(example: Example) -> str:
    """The text that is given."""
    return "".join(p.text for t in example.turns for p in t.parts if isinstance(p, Text))


def _voice(example: Example) -> str | None:
    return next((p.name for t in example.turns for p in t.parts if isinstance(p, Label)), None)


def _edged(letters: list[int]) -> Array:
    return np.array([EDGE, *letters, EDGE], np.int32)
