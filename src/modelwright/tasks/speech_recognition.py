"""Write down what is said in a recording."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from modelwright.data.sound_rows import recording
from modelwright.tasks import questions_of_sound
from modelwright.tasks.task import Measured, Task
from modelwright.tasks.transcripts import compared, error_rates, normalised, word_error_rate
from modelwright.tasks.vector_classification import missing_column
from modelwright.types import Example, Policy, Row, Turn, text_turn


class SpeechRecognition(Task):
    """Rows with a recording and its transcript.

    Recordings are the bytes of a file in ``audio`` (folders of them, with their transcripts
    beside them, give that), or ``samples`` and ``rate``.

    Args:
        audio: the column that holds the recording; left out: ``audio``, ``sound`` or ``wav``.
        text: the column that holds the transcript.
        lower: whether transcripts are written in small letters.
        punctuation: whether punctuation is learned, and counted as an error.
    """

    codec = "speech"
    objective = "ctc"
    model = "conformer"
    measure = "word error rate"
    better: ClassVar[str] = "lower"
    specimen: ClassVar[Row] = {
        "id": "a",
        "samples": np.sin(np.arange(8000, dtype=np.float32) ** 1.5 / 900) / 2,
        "rate": 8000,
        "text": "A hum, rising",
    }

    def __init__(
        self, audio: str = "", text: str = "text", lower: bool = True, punctuation: bool = False
    ) -> None:
        self.audio, self.text, self.lower, self.punctuation = audio, text, lower, punctuation

    def examples(self, row: Row) -> Iterator[Example] | str:
        """One example, or why a row has none: no transcript, or a recording that is not whole."""
        if self.text not in row:
            raise missing_column(row, self.text, "holds the transcript", "text")
        said = self._plain(str(row[self.text] or ""))
        if not said:
            return "no transcript"
        found = recording(row, self.audio)
        if isinstance(found, str):
            return found
        return iter([Example((Turn("user", (found,)), text_turn("assistant", said, learn=True)))])

    def _plain(self, text: str) -> str:
        return normalised(text, lower=self.lower, punctuation=self.punctuation)

    def grade(self, example: Example, answer: Turn) -> float:
        """The word error rate of one recording."""
        return word_error_rate(self._plain(example.answer.text), self._plain(answer.text))

    def measures(self, examples: Sequence[Example], policy: Policy) -> list[Measured]:
        """Word and character error rates over all recordings."""
        answers = policy.answer([example.given for example in examples])
        meant = [self._plain(example.answer.text) for example in examples]
        return error_rates(meant, [self._plain(answer.text) for answer in answers])

    def compared(self, reference: str, answer: str) -> list[tuple[str, str]]:
        """Word by word, as errors are counted."""
        return compared(self._plain(reference), self._plain(answer))

    def question(self, text: str) -> Sequence[Turn]:
        """The turns of the path of a recording, or of what ``request`` reads."""
        return questions_of_sound.question(text)

    def request(self, text: str) -> Sequence[Turn]:
        """The turns of a recording as a data URL."""
        return questions_of_sound.request(text)

    def heard(self, content: bytes, name: str) -> Sequence[Turn]:
        """The turns of the bytes of a sound file, as a server receives them."""
        return (Turn("user", (questions_of_sound.sound_of(content, name),)),)
