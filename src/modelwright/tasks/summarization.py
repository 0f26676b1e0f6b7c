"""Say in short what a text says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from modelwright.errors import ModelwrightError
from modelwright.tasks.grading import sentences
from modelwright.tasks.scores import rouge, rouge_f1
from modelwright.tasks.task import Measured
from modelwright.tasks.text_pairs import TextPairs
from modelwright.types import Example, Row, Turn


class Summarization(TextPairs):
    """Rows with a text and its summary.

    Args:
        source: the column of the text; left out, it is guessed and said.
        target: the column of the summary.
        lead: how many first sentences the trivial summary takes.
    """

    measure = "ROUGE-L"
    customary = (
        *TextPairs.customary,
        ("document", "summary"),
        ("article", "highlights"),
        ("article", "summary"),
        ("article", "abstract"),
        ("dialogue", "summary"),
        ("text", "summary"),
    )
    specimen: ClassVar[Row] = {
        "id": "a",
        "document": "The bridge was closed on Monday. Engineers had found a crack in one of its"
        " cables. It will be open again in spring, the city said.",
        "summary": "A cracked cable closes the bridge until spring.",
    }

    def __init__(self, source: str = "", target: str = "", lead: int = 3) -> None:
        super().__init__(source, target)
        if lead < 1:
            raise ModelwrightError(f"task summarization: lead {lead} is below 1")
        self.lead = lead

    def grade(self, example: Example, answer: Turn) -> float:
        """The F1 of ROUGE-L, 0 to 1."""
        return rouge_f1(example.answer.text, answer.text)["rougeL"]

    def trivial(self) -> Mapping[str, Callable[[str], str]]:
        """The first sentences of the text."""
        name = "first sentence" if self.lead == 1 else f"first {self.lead} sentences"
        return {name: lambda text: " ".join(sentences(text)[: self.lead])}

    def scores(self, references: Sequence[str], answers: Sequence[str]) -> list[Measured]:
        """The means of ROUGE-1, ROUGE-2 and ROUGE-L."""
        return rouge(references, answers)
