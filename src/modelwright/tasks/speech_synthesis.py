"""Speak a text: what is written is given, the recording is to be made."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from modelwright.data.sound_rows import recording
from modelwright.errors import ModelwrightError
from modelwright.tasks.sound_scores import mel_cepstral_distortion, real_time_factor
from modelwright.tasks.task import Measured, Task
from modelwright.tasks.transcripts import normalised
from modelwright.tasks.vector_classification import missing_column
from modelwright.types import Example, Label, Policy, Row, Text, Turn

LONGEST = 2000  # characters of a question: minutes of speech
PLAIN = str.maketrans("‘’“”–—", "''\"\"--")  # as they are typed, and mostly spelled in transcripts


class SpeechSynthesis(Task):
    """Rows with a text and a recording that speaks it; how a model's speech is made.

    Args:
        text: the column that holds the text.
        audio: the column that holds the recording; left out: ``audio``, ``sound``, ``wav``, or
            ``samples`` and ``rate``.
        voice: the column that names who speaks; left out: one voice.
        longest: seconds of the longest recording that is taken.
        steps: of the sampler for one text; 0 takes the mean spectrum alone.
        sampler: "euler" asks the model once a step, "heun" twice, of second order.
        temperature: deviation of the noise that speech begins as.
        pace: above 1 is faster.
        vocoder: the run of a vocoder with the same frames; left out: Griffin and Lim's algorithm.
        iterations: of that algorithm.
        recogniser: a run of speech recognition that judges what is understood.
    """

    codec = "spoken_text"
    objective = "speech_flow_matching"
    model = "speech_flow"
    measure = "mel-cepstral distortion"
    better = "lower"
    specimen: ClassVar[Row] = {
        "id": "a",
        "samples": np.sin(np.arange(12_000) ** 1.5 / 500).astype(np.float32) / 2,
        "rate": 16_000,
        "text": "o",
    }

    def __init__(
        self,
        *,
        text: str = "text",
        audio: str = "",
        voice: str = "",
        longest: Annotated[float, Field(gt=0)] = 20.0,
        steps: Annotated[int, Field(ge=0, le=1000)] = 10,
        sampler: Literal["euler", "heun"] = "euler",
        temperature: Annotated[float, Field(ge=0)] = 0.7,
        pace: Annotated[float, Field(gt=0.1, le=10)] = 1.0,
        vocoder: str = "",
        iterations: Annotated[int, Field(ge=1, le=10_000)] = 60,
        recogniser: str = "",
    ) -> None:
        self.text, self.audio, self.voice, self.longest = text, audio, voice, longest
        self.voices: tuple[str, ...] = ()  # that train has, where there are several
        self.vocoder, self.iterations, self.recogniser = vocoder, iterations, recogniser
        self.sampling: dict[str, Any] = {"steps": steps, "sampler": sampler}
        self.sampling |= {"temperature": temperature, "pace": pace}

    def examples(self, row: Row) -> Iterator[Example] | str:
        """One example, or why a row has none: no text, or a recording that is not whole."""
        for column, use, option in (
            (self.text, "holds the text", "text"),
            (self.voice, "names the voice", "voice"),
        ):
            if column and column not in row:
                raise missing_column(row, column, use, option)
        written = self.plain(str(row[self.text] or ""))
        if not written:
            return "no text"
        sound = recording(row, self.audio, seconds=self.longest)
        if isinstance(sound, str):
            return sound
        if not sound.samples.any():
            return "silence"
        voice = (Label(str(row[self.voice])),) if self.voice else ()
        given = Turn("user", (Text(written), *voice))
        return iter([Example((given, Turn("assistant", (sound,), learn=True)))])

    def plain(self, text: str) -> str:
        """The text as it is learned: small letters, punctuation kept, plain quotes and dashes."""
        return normalised(text.translate(PLAIN), punctuation=True)

    def grade(self, example: Example, answer: Turn) -> float:
        """The mel-cepstral distortion from the recording in dB, frames paired by warping."""
        return mel_cepstral_distortion(example.answer.sound, answer.sound, warped=True)

    def measures(self, examples: Sequence[Example], policy: Policy) -> list[Measured]:
        """Distortion, how far durations are from the recordings', and the time it takes."""
        began = time.perf_counter()
        answers = policy.answer([example.given for example in examples])
        took = time.perf_counter() - began
        grades = [self.grade(e, a) for e, a in zip(examples, answers, strict=True)]
        lengths = [
            abs(a.sound.seconds / e.answer.sound.seconds - 1)
            for e, a in zip(examples, answers, strict=True)
        ]
        return [
            Measured(
                "mel-cepstral distortion of speech, dB",
                statistics.fmean(grades),
                "lower",
                "24 cepstra of 80 mel bands, frames paired by dynamic time warping",
            ),
            Measured(
                "length beside the recording", statistics.fmean(lengths), "lower", "as a share"
            ),
            real_time_factor(took, answers),
        ]

    def baselines(self, train: Sequence[Example]) -> Mapping[str, Policy]:  # noqa: ARG002 - it has none
        """None: what stands beside a model's speech is made of the model and of the recordings."""
        return {}

    def knows(self, codec: object) -> None:
        """Take the names of the voices."""
        self.voices = tuple(getattr(codec, "labels", ()))

    def question(self, text: str) -> Sequence[Turn]:
        """The turns of a text to be spoken; "NAME: TEXT" in that voice, where there are several.

        Other texts with a colon are spoken whole: what stands before it is no voice of theirs.
        """
        voice, written = named_voice(text, self.voices)
        written = self.plain(written)
        if not written or len(written) > LONGEST:
            raise ModelwrightError(
                f"question: {len(written)} characters to speak; give 1 to {LONGEST}, such as one"
                " sentence"
            )
        label = (Label(voice),) if voice else ()
        return (Turn("user", (Text(written), *label)),)


def named_voice(text: str, voices: Sequence[str]) -> tuple[str, str]:
    """The voice that a text names before a colon, and the text behind it; else "" and the text.

    Where there are voices, a text that begins with a colon names none: ": ann: go" is "ann: go".
    """
    text = text.strip()
    for voice in sorted(["", *voices] if voices else [], key=len, reverse=True):
        behind = text[len(voice) :].lstrip()
        if text.startswith(voice) and behind.startswith(":"):
            return voice, behind[1:]
    return "", text
