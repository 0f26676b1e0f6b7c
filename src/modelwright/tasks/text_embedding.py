"""Vectors of texts: near where two texts mean the same, or belong together."""

from __future__ import annotations

from typing import ClassVar

from modelwright.tasks.related_texts import RelatedTexts
from modelwright.types import Row


class TextEmbedding(RelatedTexts):
    """Pairs of texts, such as paraphrases or translations; ``negatives`` does not belong to them.

    Measured is whether the first of a pair finds the second among those of all pairs.
    """

    sides = ("first", "second")
    customary: ClassVar[tuple[tuple[str, str], ...]] = (
        ("first", "second"),
        ("anchor", "positive"),
        ("sentence1", "sentence2"),
        ("text1", "text2"),
        ("source", "target"),
        ("classical", "modern"),
        ("en", "zh"),
    )
    specimen: ClassVar[Row] = {
        "id": "0",
        "first": "The cat sleeps on the sofa.",
        "second": "A cat is asleep on a couch.",
        "negatives": "The dog barks.",
    }

    def __init__(self, first: str = "", second: str = "", negatives: str = "negatives") -> None:
        super().__init__(first, second, negatives)
