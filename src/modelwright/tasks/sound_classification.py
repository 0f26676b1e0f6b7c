"""Name the class of a recording: a spoken command or digit, a speaker, a noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from modelwright.data.sound_rows import recording
from modelwright.tasks import questions_of_sound
from modelwright.tasks.task import Task
from modelwright.tasks.vector_classification import missing_column
from modelwright.types import Example, Label, Row, Turn


class SoundClassification(Task):
    """Rows with a recording and a label.

    Recordings are the bytes of a file in ``audio`` (folders with a folder a class give that), or
    ``samples`` and ``rate``.

    Args:
        audio: the column that holds the recording; left out: ``audio``, ``sound`` or ``wav``.
        label: the column that holds the class.
    """

    codec = "sounds"
    objective = "classification"
    model = "conformer"
    measure = "accuracy"
    by_class: ClassVar[bool] = True
    specimen: ClassVar[Row] = {
        "id": "a",
        "samples": np.sin(np.arange(4000, dtype=np.float32) / 4) / 2,
        "rate": 8000,
        "label": "hum",
    }

    def __init__(self, audio: str = "", label: str = "label") -> None:
        self.audio, self.label = audio, label

    def examples(self, row: Row) -> Iterator[Example] | str:
        """One example, or why a row has none: no label, or a recording that is not whole."""
        if self.label not in row:
            raise missing_column(row, self.label, "holds the class", "label")
        if row[self.label] is None or row[self.label] == "":
            return "no label"
        found = recording(row, self.audio)
        if isinstance(found, str):
            return found
        answer = Turn("assistant", (Label(str(row[self.label])),), learn=True)
        return iter([Example((Turn("user", (found,)), answer))])

    def grade(self, example: Example, answer: Turn) -> float:
        """1 for the right class, else 0."""
        return float(answer.label == example.answer.label)

    def kind(self, example: Example) -> str:
        """The class, so that every class's accuracy is seen."""
        return example.answer.label

    def question(self, text: str) -> Sequence[Turn]:
        """The turns of the path of a recording, or of what ``request`` reads."""
        return questions_of_sound.question(text)

    def request(self, text: str) -> Sequence[Turn]:
        """The turns of a recording as a data URL."""
        return questions_of_sound.request(text)
