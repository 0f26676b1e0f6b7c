"""Which scripts put no space between words, and the words of a text of any script."""

from __future__ import annotations

import re
import unicodedata

IDEOGRAPHS = "㐀-鿿豈-﫿"  # as in a class of an expression
# Thai and Lao, Myanmar, Khmer, kana, ideographs.
UNSPACED = f"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff{IDEOGRAPHS}"
_UNIT = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")
_ALONE = re.compile(f"[{UNSPACED}]")


def units(text: str) -> list[str]:
    """The words of a text; characters with their marks, where a script has no space between words.

    >>> units("the cat 貓在這裡")
    ['the', 'cat', '貓', '在', '這', '裡']
    """
    found: list[str] = []
    end = -1
    for match in _UNIT.finditer(text):
        one = match.group()
        if end == match.start() and unicodedata.category(one[0])[0] == "M":
            found[-1] += one
        else:
            found.append(one)
        end = match.end()
    return found


def apart(before: str, after: str) -> bool:
    """Whether a space stands between two texts, of which one goes on where the other ends.

    >>> apart("the", "cat"), apart("貓", "在"), apart("", "cat")
    (True, False, False)
    """
    spaceless = _ALONE.match(before[-1:]) and _ALONE.match(after)
    return bool(before and after) and not spaceless
