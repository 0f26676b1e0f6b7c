"""Noise as people and machines make it in text: slips of the keyboard, misread print, lost case.

Each transform takes a text and a generator and gives a text; a rate is the chance of every
character that could be changed. White space is never touched, so words stay words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

Rate = Annotated[float, Field(ge=0, le=1)]

_ROWS = ("1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm")
# What readers of print take for something else; the longer spelling is tried first.
_MISREAD = {
    "rn": "m", "cl": "d", "vv": "w", "li": "h", "m": "rn", "d": "cl", "w": "vv",
    "0": "O", "O": "0", "1": "l", "l": "1", "I": "l", "5": "S", "S": "5", "8": "B", "B": "8",
    "e": "c", "c": "e", "u": "n", "n": "u", "a": "o", "o": "a", "g": "q", "2": "Z", "Z": "2",
    "日": "曰", "己": "已", "已": "己", "未": "末", "末": "未", "人": "入", "入": "人",
    "大": "太", "太": "大", "土": "士", "士": "土", "了": "子", "子": "了", "天": "夭",
}  # fmt: skip


def _neighbours() -> dict[str, str]:
    """Keys that touch a key on a QWERTY keyboard, each row half a key right of the one above."""
    found = {}
    for y, row in enumerate(_ROWS):
        for x, key in enumerate(row):
            near = [
                other
                for dy in (-1, 0, 1)
                if 0 <= y + dy < len(_ROWS)
                for i, other in enumerate(_ROWS[y + dy])
                if other != key and abs(i + dy / 2 - x) <= 1
            ]
            found[key] = "".join(near)
    return found


_NEAR = _neighbours()


@dataclass(frozen=True)
class Typos:
    """Letters and digits struck beside the key, left out, struck twice, or swapped with the next.

    Characters that are on no such keyboard are only left out, doubled or swapped.
    """

    kind: ClassVar[str] = "text"

    rate: Rate = 0.02

    def __call__(self, text: str, rng: np.random.Generator) -> str:
        """The text with some characters mistyped."""
        out: list[str] = []
        hits, slips = rng.random(len(text)) < self.rate, rng.integers(4, size=len(text))
        at = 0
        while at < len(text):
            letter = text[at]
            slip = int(slips[at]) if hits[at] and letter.isalnum() else -1
            following = text[at + 1 : at + 2]
            if slip == 0 and letter.lower() in _NEAR:
                near = _NEAR[letter.lower()]
                struck = near[int(rng.integers(len(near)))]
                out.append(struck.upper() if letter.isupper() else struck)
            elif slip == 1:
                pass
            elif slip == 2:
                out.append(letter * 2)
            elif slip == 3 and following.isalnum():
                out.append(following + letter)
                at += 1
            else:
                out.append(letter)
            at += 1
        return "".join(out)


@dataclass(frozen=True)
class Misread:
    """Characters as an optical reader confuses them: rn and m, 0 and O, 未 and 末."""

    kind: ClassVar[str] = "text"

    rate: Rate = 0.02

    def __call__(self, text: str, rng: np.random.Generator) -> str:
        """The text with some characters misread."""
        hits = rng.random(len(text)) < self.rate
        out: list[str] = []
        at = 0
        while at < len(text):
            size = 2 if text[at : at + 2] in _MISREAD else 1
            piece = text[at : at + size]
            out.append(_MISREAD.get(piece, piece) if hits[at] else piece)
            at += size
        return "".join(out)


@dataclass(frozen=True)
class Casing:
    """The whole text in small or capital letters, or every word with a capital."""

    kind: ClassVar[str] = "text"

    probability: Rate = 0.3
    to: tuple[Literal["lower", "upper", "title"], ...] = ("lower", "upper")

    def __call__(self, text: str, rng: np.random.Generator) -> str:
        """The text, or the text in another case."""
        if rng.random() >= self.probability or not self.to:
            return text
        form = self.to[int(rng.integers(len(self.to)))]
        changed: str = getattr(text, form)()
        return changed
