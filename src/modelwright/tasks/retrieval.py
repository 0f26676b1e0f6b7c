"""Find the passage that answers a query: vectors of both, near each other."""

from __future__ import annotations

from typing import ClassVar

from modelwright.tasks.related_texts import RelatedTexts
from modelwright.types import Row


class Retrieval(RelatedTexts):
    """Queries and the passages that answer them; ``negatives`` is a column of some that do not.

    Rows may also be paragraphs with questions, as SQuAD has them.
    """

    sides = ("query", "passage")
    customary: ClassVar[tuple[tuple[str, str], ...]] = (
        ("query", "passage"),
        ("query", "positive"),
        ("query", "document"),
        ("anchor", "positive"),
        ("question", "context"),
        ("question", "passage"),
        ("question", "answer"),
        ("title", "abstract"),
        ("title", "text"),
    )
    specimen: ClassVar[Row] = {
        "id": "0",
        "query": "Where is the bridge?",
        "passage": "The old bridge crosses the river at Ely.",
        "negatives": ["The mill was closed in 1901."],
    }

    def __init__(self, query: str = "", passage: str = "", negatives: str = "negatives") -> None:
        super().__init__(query, passage, negatives)
