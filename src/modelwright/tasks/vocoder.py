"""Make a recording again of its mel spectrum: the last step from text to speech."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field

from modelwright.data.codecs.waveforms import frames_of
from modelwright.data.sound_rows import recording
from modelwright.data.spectrograms import MelSettings, griffin_lim
from modelwright.tasks import questions_of_sound
from modelwright.tasks.sound_scores import mel_cepstral_distortion, real_time_factor
from modelwright.tasks.task import Measured, Task
from modelwright.types import Example, Policy, Row, Sound, Turn

SHORTEST = 0.1  # seconds: less is no piece to learn


class Vocoder(Task):
    """Rows with a recording; its transcript, if there is one, is not looked at.

    Args:
        audio: the column that holds the recording; left out: ``audio``, ``sound``, ``wav``, or
            ``samples`` and ``rate``.
        longest: seconds of the longest recording that is taken.
        iterations: of Griffin and Lim's algorithm, which is measured beside the model.
    """

    codec = "waveforms"
    objective = "spectral"
    model = "vocos"
    measure = "mel-cepstral distortion"
    better = "lower"
    times = True
    specimen: ClassVar[Row] = {
        "id": "a",
        "samples": np.sin(np.arange(12_000) ** 1.5 / 500).astype(np.float32) / 2,
        "rate": 16_000,
    }

    def __init__(
        self,
        *,
        audio: str = "",
        longest: Annotated[float, Field(gt=0)] = 30.0,
        iterations: Annotated[int, Field(ge=1, le=10_000)] = 60,
    ) -> None:
        self.audio, self.longest, self.iterations = audio, longest, iterations

    def examples(self, row: Row) -> Iterator[Example] | str:
        """One example: the recording's spectrum is given, the recording is learned."""
        sound = recording(row, self.audio, seconds=self.longest)
        if isinstance(sound, str):
            return sound
        if sound.seconds < SHORTEST:
            return "recording too short"
        if not sound.samples.any():
            return "silence"
        return iter([Example((Turn("user", (sound,)), Turn("assistant", (sound,), learn=True)))])

    def grade(self, example: Example, answer: Turn) -> float:
        """The mel-cepstral distortion in dB, 0 for the recording itself."""
        return mel_cepstral_distortion(example.answer.sound, answer.sound)

    def measures(self, examples: Sequence[Example], policy: Policy) -> list[Measured]:
        """The distortion, and how long a second of sound takes."""
        began = time.perf_counter()
        answers = policy.answer([example.given for example in examples])
        took = time.perf_counter() - began
        grades = [self.grade(e, a) for e, a in zip(examples, answers, strict=True)]
        return [
            Measured(
                "mel-cepstral distortion, dB",
                statistics.fmean(grades),
                "lower",
                "24 cepstra of 80 mel bands, no warping; the median is "
                f"{statistics.median(grades):.2f}",
            ),
            real_time_factor(took, answers),
        ]

    def baselines(self, train: Sequence[Example]) -> Mapping[str, Policy]:  # noqa: ARG002 - nothing learned
        """The algorithm of Griffin and Lim, which needs nothing learned."""
        return {f"Griffin-Lim, {self.iterations} iterations": GriffinLim(self.iterations)}

    def question(self, text: str) -> Sequence[Turn]:
        """The turns of the path of a recording, or of its bytes as a data URL."""
        return questions_of_sound.question(text)

    def request(self, text: str) -> Sequence[Turn]:
        """The turns of a recording as a data URL: over a network no file is read."""
        return questions_of_sound.request(text)


class GriffinLim:
    """A policy that makes a recording again of its own mel spectrum, by rule.

    Frames are made with the codec's own default settings for the recording's rate.
    """

    def __init__(self, iterations: int) -> None:
        self.iterations = iterations

    def answer(self, given: Sequence[Sequence[Turn]]) -> list[Turn]:
        """A recording for each."""
        answers = []
        for turns in given:
            sound = turns[-1].sound
            settings = MelSettings(sound.rate, highest=min(8000.0, sound.rate / 2))
            frames = torch.from_numpy(frames_of(sound, settings))[None]
            made = griffin_lim(frames, settings, iterations=self.iterations)[0].numpy()
            answers.append(Turn("assistant", (Sound(made.clip(-1, 1), sound.rate),)))
        return answers
