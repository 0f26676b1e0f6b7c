"""Learn a language from documents, both sides of a gap at once: pretraining of encoders."""

from __future__ import annotations

from typing import ClassVar

from modelwright.tasks.documents import Documents
from modelwright.types import Row


class MaskedText(Documents):
    """Every row's ``text`` is one document, of which masked tokens are guessed."""

    objective = "masked_language"
    model = "bert"
    specimen: ClassVar[Row] = {"id": "a.txt", "text": "A gap is seen from both of its sides.\n"}
