"""Say what a text feels: the classes of a review, by another name."""

from __future__ import annotations

from typing import ClassVar

from modelwright.tasks.text_classification import TextClassification
from modelwright.types import Row


class Sentiment(TextClassification):
    """Rows with a text and what it feels; the options are those of ``text_classification``."""

    by_class = True  # positive and negative are seldom alike in number
    specimen: ClassVar[Row] = {
        "id": "a",
        "text": "The room was clean and the breakfast good.",
        "label": "positive",
    }
