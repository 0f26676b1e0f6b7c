"""Edits of words: delete, swap, insert, replace: EDA (Wei and Zou, 2019, arXiv:1901.11196).

A word is a run of letters or digits, or one Chinese, Japanese or Korean character, since these
are not parted by spaces. What stands between words stays. Synonyms come from a list of the
user's own: what may stand for what depends on the task, and a wrong list changes labels.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from modelwright.errors import ModelwrightError

Rate = Annotated[float, Field(ge=0, le=1)]
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]"
    r"|[^\W\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]+(?:['’][^\W\d_]+)?"
)


@dataclass(frozen=True)
class DeleteWords:
    """Leave out each word with the chance ``rate``; one is always left."""

    kind: ClassVar[str] = "text"

    rate: Rate = 0.1

    def __call__(self, text: str, rng: np.random.Generator) -> str:
        """The text without some words, and without the space that followed them."""
        pieces, words = parted(text)
        if not words:
            return text
        gone = rng.random(len(words)) < self.rate
        if gone.all():
            gone[int(rng.integers(len(words)))] = False
        for at, leaves in zip(words, gone, strict=True):
            if leaves:
                pieces[at] = ""
                if at + 1 < len(pieces) and pieces[at + 1].startswith(" "):
                    pieces[at + 1] = pieces[at + 1][1:]
        return "".join(pieces)


@dataclass(frozen=True)
class SwapWords:
    """Swap two words drawn at random, ``rate`` times the number of words."""

    kind: ClassVar[str] = "text"

    rate: Rate = 0.1

    def __call__(self, text: str, rng: np.random.Generator) -> str:
        """The text with the same words in another order."""
        pieces, words = parted(text)
        for _ in range(round(self.rate * len(words)) if len(words) > 1 else 0):
            a, b = (words[int(i)] for i in rng.choice(len(words), size=2, replace=False))
            pieces[a], pieces[b] = pieces[b], pieces[a]
        return "".join(pieces)


@dataclass(frozen=True)
class Synonyms:
    """Replace words that have synonyms, each with the chance ``rate``.

    Attributes:
        list: a JSON file {word: [synonym, ...]}, or a mapping; words in small letters.
        rate: the chance of each such word.
        insert: the chance, for each such word, that a synonym is put at a random place as well.
    """

    kind: ClassVar[str] = "text"

    list: str | dict[str, tuple[str, ...]]
    rate: Rate = 0.1
    insert: Rate = 0.0

    def __call__(self, text: str, rng: np.random.Generator) -> str:
        """The text with some words replaced."""
        known = self.list if isinstance(self.list, Mapping) else read_synonyms(self.list)
        pieces, words = parted(text)
        able = [at for at in words if known.get(pieces[at].lower())]
        draws = rng.random((2, len(able)))
        added: list[tuple[int, str]] = []
        for at, replaces, inserts in zip(able, *draws, strict=True):
            others = known[pieces[at].lower()]
            chosen = others[int(rng.integers(len(others)))]
            if inserts < self.insert:
                added.append((words[int(rng.integers(len(words)))], chosen))
            if replaces < self.rate:
                pieces[at] = chosen.capitalize() if pieces[at][:1].isupper() else chosen
        for at, word in added:
            pieces[at] += word if _WORD.fullmatch(word) and len(word) == 1 else f" {word}"
        return "".join(pieces)

    def assets(self) -> dict[str, str]:
        """The hash of the list, so that an edited one is another transform."""
        if isinstance(self.list, Mapping):
            return {}
        return {"list": hashlib.blake2b(_content(self.list), digest_size=16).hexdigest()}


@lru_cache(maxsize=8)
def read_synonyms(path: str) -> dict[str, tuple[str, ...]]:
    """A list of synonyms from a JSON file.

    Raises:
        ModelwrightError: it cannot be read, or is not {word: [synonym, ...]}.
    """
    try:
        found = json.loads(_content(path))
    except ValueError as error:
        raise ModelwrightError(f"{path}: not JSON ({error}); write {{word: [synonym]}}") from error
    sound = isinstance(found, dict) and all(
        isinstance(v, list) and all(isinstance(s, str) and s for s in v) for v in found.values()
    )
    if not sound:
        raise ModelwrightError(f"{path}: is no list of synonyms; write {{word: [synonym, ...]}}")
    return {word.lower(): tuple(others) for word, others in found.items()}


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ModelwrightError(f"{path}: cannot be read ({error.strerror})") from error


def parted(text: str) -> tuple[list[str], list[int]]:
    """The text in pieces that join to it again, and which of them are words."""
    pieces: list[str] = []
    words: list[int] = []
    end = 0
    for match in _WORD.finditer(text):
        pieces += [text[end : match.start()], match[0]]
        words.append(len(pieces) - 1)
        end = match.end()
    return [*pieces, text[end:]], words
