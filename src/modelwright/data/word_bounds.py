"""Where the words of a text begin and end, and where the tokens of a tokenizer do."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from modelwright.data.scripts import IDEOGRAPHS
from modelwright.data.tokenizing.alphabet import encodable
from modelwright.types import Array

# A Chinese character is a word of its own, so is a mark; letters and digits go together.
_WORD = re.compile(rf"[{IDEOGRAPHS}]|[^\W{IDEOGRAPHS}]+|[^\w\s]")


def word_bounds(text: str) -> Array:
    """First character and the one after the last of every word, int64 (words, 2)."""
    found = [match.span() for match in _WORD.finditer(text)]
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def pieces(text_codec: Any, text: str) -> tuple[list[int], Array]:
    """Token ids (T,) of a text, and the characters that each stands for, int64 (T, 2).

    A character of several tokens belongs to each of them; white space before a word is left out,
    though its token stands for it too.

    Args:
        text_codec: a codec of text with a ``tokenizer`` of the tokenizers library.
        text: any text.
    """
    found = text_codec.tokenizer.encode(encodable(text), add_special_tokens=False)
    bounds = [(_trimmed(text, begin, end), end) for begin, end in found.offsets]
    return list(found.ids), np.array(bounds, dtype=np.int64).reshape(-1, 2)


def _trimmed(text: str, begin: int, end: int) -> int:
    """The first character that is no white space; that of nothing else stays."""
    if begin < end and text[begin].isspace():
        words = text[begin:end].lstrip()
        return end - len(words) if words else begin
    return begin


def overlapping(bounds: Array, begin: int, end: int) -> tuple[int, int]:
    """The first row and the one after the last of ``bounds`` that touch begin .. end - 1.

    Rows are in the order of the text; equal numbers where none touches.
    """
    first = int(np.searchsorted(bounds[:, 1], begin, side="right"))
    last = int(np.searchsorted(bounds[:, 0], end, side="left"))
    return first, max(first, last)
