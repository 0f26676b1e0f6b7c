"""Translate a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from modelwright.tasks.scores import bleu, chrf, sentence_chrf
from modelwright.tasks.task import Measured
from modelwright.tasks.text_pairs import TextPairs
from modelwright.types import Example, Row, Turn


class Translation(TextPairs):
    """Rows with a text and its translation.

    Args:
        source: the column of the text; left out, it is guessed and said.
        target: the column of the translation.
    """

    measure = "chrF"
    specimen: ClassVar[Row] = {
        "id": "a",
        "source": "Ein Hund läuft über die Wiese.",
        "target": "A dog runs across the meadow.",
    }

    def grade(self, example: Example, answer: Turn) -> float:
        """The chrF of one sentence, 0 to 100."""
        return sentence_chrf(example.answer.text, answer.text)

    def trivial(self) -> Mapping[str, Callable[[str], str]]:
        """What is left as it is: names and numbers are right in most languages."""
        return {"copy of the source": str}

    def scores(self, references: Sequence[str], answers: Sequence[str]) -> list[Measured]:
        """BLEU and chrF of all answers together, by sacreBLEU."""
        return [bleu(references, answers), chrf(references, answers)]
