"""What a spoken request wants: its intent and its slots, straight from the recording.

The answer is a line, "orderDrink; coffeeDrink: latte; size: small", slots in the order of their
names, which an encoder-decoder writes without a transcript between.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from modelwright.data.sound_rows import recording
from modelwright.errors import ModelwrightError
from modelwright.tasks import questions_of_sound
from modelwright.tasks.task import Measured, Task
from modelwright.tasks.transcripts import normalised
from modelwright.tasks.vector_classification import missing_column
from modelwright.types import Example, Label, Policy, Row, Span, Turn, text_turn


class SpeechUnderstanding(Task):
    """Rows with a recording, an ``intent`` and ``slots``, a mapping of names to words.

    Args:
        audio: the column that holds the recording; left out: ``audio``, ``sound`` or ``wav``.
        intent: the column that holds the intent.
        slots: the column that holds the slots.
        recogniser: a run that writes down what is said, to be measured beside this model;
        reader: and the run of ``token_classification`` that finds the slots in what it wrote.
    """

    codec = "windowed_speech"
    objective = "transcription"
    model = "whisper"
    measure = "share of slots and intent that are right"
    specimen: ClassVar[Row] = {
        "id": "a",
        "samples": np.sin(np.arange(8000, dtype=np.float32) / 5) / 2,
        "rate": 8000,
        "intent": "order",
        "slots": {"drink": "tea"},
    }

    def __init__(
        self,
        audio: str = "",
        intent: str = "intent",
        slots: str = "slots",
        recogniser: str = "",
        reader: str = "",
    ) -> None:
        self.audio, self.intent, self.slots = audio, intent, slots
        self.recogniser, self.reader = recogniser, reader

    def examples(self, row: Row) -> Iterator[Example] | str:
        """One example, or why a row has none."""
        for column, what in ((self.intent, "intent"), (self.slots, "slots")):
            if column not in row:
                raise missing_column(row, column, f"holds the {what}", what)
        if not row[self.intent]:
            return "no intent"
        slots: Any = row[self.slots] or {}
        if not isinstance(slots, Mapping):
            raise ModelwrightError(
                f"row {row.get('id', '?')}: column {self.slots!r} holds {str(slots)[:40]!r}, a"
                " mapping of slots to words is meant"
            )
        found = recording(row, self.audio)
        if isinstance(found, str):
            return found
        said = written(str(row[self.intent]), slots)
        return iter([Example((Turn("user", (found,)), text_turn("assistant", said, learn=True)))])

    def grade(self, example: Example, answer: Turn) -> float:
        """F1 of the intent and the slots: 1 where all are right and nothing is added."""
        meant, said = pairs(example.answer.text), pairs(answer.text)
        return 2 * len(meant & said) / max(1, len(meant) + len(said))

    def measures(self, examples: Sequence[Example], policy: Policy) -> list[Measured]:
        """Recordings of which all is right, intents, and the F1 of all slots together."""
        answers = policy.answer([example.given for example in examples])
        meant = [pairs(example.answer.text) for example in examples]
        said = [pairs(answer.text) for answer in answers]
        both = list(zip(meant, said, strict=True))
        right = sum(len(_slots(m) & _slots(s)) for m, s in both)
        total = sum(len(_slots(m)) + len(_slots(s)) for m, s in both)
        intents = sum(m - _slots(m) == s - _slots(s) for m, s in both)
        exact = sum(m == s for m, s in both) / len(both)
        return [
            Measured("requests understood", exact, note="intent and every slot right"),
            Measured("intent accuracy", intents / len(both)),
            Measured("slot F1", 2 * right / max(1, total), note="name and words right"),
        ]

    def understood(self, text: str, found: Turn, usual: str) -> Turn:
        """The line of what a text model found in a text: its label, else ``usual``, and spans.

        Of several spans of one kind the surest is taken.
        """
        intent = next((p.name for p in found.parts if isinstance(p, Label)), usual)
        spans = [p for p in found.parts if isinstance(p, Span)]
        slots = {s.label: text[s.begin : s.end] for s in sorted(spans, key=lambda s: s.score)}
        return text_turn("assistant", written(intent, slots))

    def intent_of(self, answer: Turn) -> str:
        """The intent of a line."""
        return next((words for name, words in pairs(answer.text) if not name), "")

    def question(self, text: str) -> Sequence[Turn]:
        """The turns of the path of a recording, or of what ``request`` reads."""
        return questions_of_sound.question(text)

    def request(self, text: str) -> Sequence[Turn]:
        """The turns of a recording as a data URL."""
        return questions_of_sound.request(text)


def written(intent: str, slots: Mapping[str, Any]) -> str:
    """Intent and slots as a line."""
    named = (f"{name}: {normalised(str(slots[name]))}" for name in sorted(slots))
    return "; ".join((intent, *named))


def pairs(text: str) -> frozenset[tuple[str, str]]:
    """The slots of a line by name, and its intent without one."""
    parts = [part.strip() for part in text.split(";") if part.strip()]
    cut = (part.partition(":") for part in parts)
    return frozenset(
        (name.strip(), words.strip()) if colon else ("", name) for name, colon, words in cut
    )


def _slots(found: frozenset[tuple[str, str]]) -> frozenset[tuple[str, str]]:
    return frozenset(pair for pair in found if pair[0])
