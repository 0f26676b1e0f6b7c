"""Texts from elsewhere, in the letters of an alphabet: what a model of letters is counted of."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from modelwright.data.sources import read_rows
from modelwright.data.spelling import Spelling
from modelwright.errors import ModelwrightError

LETTERS = 8_000_000  # in all: twice as many tell such a model little more, and take twice the place
_ENDED = re.compile(r"(?<=[.!?])[\"'”’)]*\s+|\n\s*\n")


def spelled_sentences(source: str, spelling: Spelling, most: int = LETTERS) -> Iterator[bytes]:
    """The sentences of texts in small letters, each character as its number in the alphabet.

    What the alphabet has not is a space, as transcripts have no punctuation.

    Args:
        source: a data set or path, as ``data.source`` takes; rows with a ``text``.
        spelling: an alphabet of characters, at most 256.
        most: characters; the rest of the source is not read.

    Raises:
        ModelwrightError: the source cannot be read, has no texts, or none that can be spelled.
    """
    letters = _Letters(spelling)
    for row in read_rows(source):
        if not isinstance(row.get("text"), str):
            raise ModelwrightError(
                f"codec.language_texts: the rows of {source} have no column 'text'; give texts"
            )
        text = unicodedata.normalize("NFC", row["text"]).lower().replace("’", "'")
        for sentence in _ENDED.split(text):
            plain = "".join(map(letters.__getitem__, sentence))
            words = " ".join(w for word in plain.split() if (w := word.strip("'")))
            if words:
                yield bytes(spelling.spelled(words))
            most -= len(words)
        if most <= 0:
            return


class _Letters(dict[str, str]):
    """A character as it stands in a transcript: itself where the alphabet has it, else a space."""

    def __init__(self, spelling: Spelling) -> None:
        super().__init__({"\n": " "})
        self._spelling, self._known = spelling, spelling.numbers

    def __missing__(self, character: str) -> str:
        pieces = self._spelling.pieces(character)
        self[character] = character if pieces and pieces[0] in self._known else " "
        return self[character]
