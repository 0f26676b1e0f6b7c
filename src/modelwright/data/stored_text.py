"""Texts that stand in a column beside their tokens, so that answers can be shown in their words.

Some codecs cut texts, and some tokenizers do not give every text back. What a task grades by
characters is therefore stored as it was given: a JSON list, the given text first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from modelwright.types import Array, Columns, Span, Turn, ragged_column


def stored(*values: Any) -> Array:
    """Plain values as bytes (n,), uint8."""
    written = json.dumps(values, ensure_ascii=False)
    return np.frombuffer(written.encode("utf-8", "surrogatepass"), dtype=np.uint8)


def restored(content: Array) -> list[Any]:
    """The values that ``stored`` was given."""
    found: list[Any] = json.loads(np.asarray(content).tobytes())
    return found


def spelled(turns: Sequence[Turn], columns: Columns) -> list[Turn]:
    """The turns, one for each row, their spans with the words of the first text in ``source``."""
    source = ragged_column(columns, "source")
    return [with_words(turn, restored(source[row])[0]) for row, turn in enumerate(turns)]


def with_words(turn: Turn, text: str) -> Turn:
    """The turn, its spans with their words of ``text``."""
    parts = (
        replace(part, text=text[part.begin : part.end]) if isinstance(part, Span) else part
        for part in turn.parts
    )
    return replace(turn, parts=tuple(parts))
