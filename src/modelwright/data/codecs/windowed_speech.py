"""Speech in windows of one length, as Whisper hears it: log-mel frames padded with silence.

The transcript is what a decoder writes: the numbers of characters or words, or the tokens of a
published tokenizer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from modelwright.data import speech as published
from modelwright.data.codecs import speech
from modelwright.data.hearing import Ear, seconds_of
from modelwright.data.sound_settings import AudioSettings
from modelwright.data.spelling import Pieces, Spelling, Units
from modelwright.errors import ModelwrightError
from modelwright.types import Example

LEAST = 64  # of the context of a model from random weights


class Codec(speech.Codec):
    """Windows of ``settings.seconds``; ``start`` and ``end`` surround what a decoder writes.

    ``given`` are numbers after the start that are given, not learned. ``context`` is how many
    numbers a decoder reads at most.
    """

    ragged: tuple[str, ...] = ("letters", "samples")  # the first must fit the context
    times: ClassVar[bool] = False  # a decoder writes text, not when it is said
    spelling: Spelling | Pieces

    def __init__(self, ear: Ear, spelling: Spelling | Pieces, context: int) -> None:
        seconds = ear.settings.seconds or published.SECONDS
        super().__init__(ear, spelling, longest=seconds)
        self.start, self.end, self.given = spelling.start, spelling.end, spelling.prompt
        self.context = context
        self.window = round(seconds * ear.settings.rate) // ear.settings.hop  # frames

    @classmethod
    def fit(  # type: ignore[override]
        cls,
        examples: Iterable[Example],
        *,
        seconds: float | None = None,
        bands: int = 80,
        units: Units = "characters",
    ) -> Codec:
        """Learn the alphabet from the ``examples`` of train.

        Args:
            examples: each with one recording and a text to learn.
            seconds: of a window; left out: the longest recording of train, 30 at most.
            bands: mel bands of a frame.
            units: "characters", or "words" of a small closed vocabulary.
        """
        kept = list(examples)
        if seconds is None:
            longest = max(map(seconds_of, kept))
            seconds = min(published.SECONDS, max(1.0, math.ceil(longest)))
        if not 1 <= seconds <= published.SECONDS or seconds != int(seconds):
            raise ModelwrightError(
                f"codec.seconds: {seconds:g} is no whole number of 1..{published.SECONDS:g}"
            )
        some = [e for e in kept if seconds_of(e) <= seconds]
        settings = AudioSettings(published.RATE, bins=bands, seconds=float(seconds))
        spelling = Spelling.of(map(speech.said, some), units)
        longest = max(len(spelling.spelled(speech.said(e))) for e in some)
        return cls(listening(settings), spelling, max(LEAST, 2 * longest))

    @property
    def spoken_language(self) -> str:
        """The code of the language that the decoder is told, or nothing."""
        return self.spelling.language if isinstance(self.spelling, Pieces) else ""

    def problem(self, example: Example) -> str:
        """Why an example cannot be learned from, or an empty string."""
        if why := super().problem(example):
            return why
        long = len(self.spelling.spelled(speech.said(example))) >= self.context
        return "transcript longer than the decoder's context" if long else ""

    def save(self) -> dict[str, bytes]:
        """``windowed_speech.json``, and the files of the hearing and of a tokenizer."""
        facts, files = self.spelling.saved()
        found = json.dumps({"spelling": facts, "context": self.context}, sort_keys=True).encode()
        return {"windowed_speech.json": found, **files, **self.ear.save()}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Codec:
        """Read what ``save`` wrote."""
        facts: dict[str, Any] = json.loads(files["windowed_speech.json"])
        kind = Pieces if facts["spelling"].get("pieces") else Spelling
        return cls(Ear.load(files), kind.restored(facts["spelling"], files), facts["context"])


def listening(settings: AudioSettings) -> Ear:
    """The hearing of published settings, which scale by rules and not by the train split."""
    nothing = np.zeros(settings.bins, np.float32)
    return Ear(settings, nothing, np.ones_like(nothing), settings.rate / 2)
